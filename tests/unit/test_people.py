"""People: what compares equal of names and numbers, and what happens when a name is too frequent."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import phonenumbers
import pytest
from botocore.exceptions import ClientError
from phonenumbers import PhoneNumberFormat, PhoneNumberType

from connector_receiver import people as module
from connector_receiver.people import Hasher, People, Recognised, Traits
from crm_bridge import aws
from crm_bridge.storage.documents import Change, Document, Documents
from crm_bridge.storage.links import Links

KEY = "a-key-that-is-used-by-nobody-else"


def traits(country: str | None = "PL", **fields: str) -> Traits:
    return Hasher(KEY, country).traits({"firstname": "Ada", "lastname": "O'Brien", **fields})


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    "lastname",
    [
        "O\u2019Brien",
        "O\u2018Brien",
        "O\u02bcBrien",
        "O`Brien",
        "O\u00b4Brien",
        "O\uff07Brien",
        "O&#39;Brien",
        "O&#x27;Brien",
        "O&apos;Brien",
        "O&rsquo;Brien",
        "O&amp;#39;Brien",  # https://github.com/makeitlegit/ProperName/issues/6
        "O\\'Brien",
        "O''Brien",
        "OBrien",
        "O Brien",
        "O' Brien",
        "  o'BRIEN ",
        "O'\u00adBrien",
        "\u200eO'Brien\ufeff",
        "O'Br\u200bien",
        "O'\u00a0Brien",
    ],
)
def test_name_is_the_same_when_only_its_writing_differs(lastname: str) -> None:
    assert traits(lastname=lastname).name == traits().name


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Łukasz", "ŁUKASZ"),
        ("Łukasz", "&#321;ukasz"),
        ("Żółć", "Z\u0307o\u0301łc\u0301"),
        ("Straße", "STRASSE"),
        ("İsmail", "ISMAIL"),
        ("I\u015f\u0131k", "I\u015eIK"),
        ("ismail", "I\u0307smail"),
        ("Ada & Co", "Ada &amp; Co"),
        ("Anna Maria", "Anna  Maria"),
        ("\ufb01lip", "filip"),
    ],
)
def test_name_is_the_same_when_case_and_form_differ(one: str, other: str) -> None:
    assert traits(firstname=one).name == traits(firstname=other).name


@pytest.mark.parametrize(
    ("one", "other"),
    [("Łukasz", "Lukasz"), ("Müller", "Mueller"), ("Ana", "Anna"), ("O'Brien", "O'Brian"), ("Ada", "Adá")],
)
def test_name_is_another_when_a_letter_differs(one: str, other: str) -> None:
    assert traits(lastname=one).name != traits(lastname=other).name


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    "mobile",
    [
        "601234567",
        "601-234-567",
        "48601234567",
        "0048 601 234 567",
        "00 48 601234567",
        "(+48) 601-234/567.",
        "+48 (0) 601 234 567",
        "0601 234 567",
        "tel:+48-601-234-567",
        "\uff0b48601234567",
        "+٤٨ ٦٠١ ٢٣٤ ٥٦٧",
        "\u202a+48 601 234 567\u202c",
    ],
)
def test_number_is_the_same_when_its_country_is_written_or_not(mobile: str) -> None:
    assert traits(mobile=mobile).mobile == traits(mobile="+48 601 234 567").mobile


@pytest.mark.parametrize("mobile", ["602 234 567", "+49 601 234 567", "+4860123456", "6012345678", "1", "+48", "601"])
def test_number_is_another_when_a_digit_or_the_country_differs(mobile: str) -> None:
    assert traits(mobile=mobile).mobile != traits(mobile="+48 601 234 567").mobile


def test_number_without_its_country_is_another_when_no_country_is_configured() -> None:
    assert traits(None, mobile="601234567").mobile != traits(None, mobile="+48601234567").mobile
    assert traits(None, mobile="0048601234567").mobile == traits(None, mobile="+48601234567").mobile


def test_number_is_compared_by_its_digits_when_the_country_is_unknown() -> None:
    assert traits("XX", mobile="601 234 567").mobile == traits("XX", mobile="601-234-567").mobile


def test_number_is_the_same_in_every_form_of_every_country() -> None:
    """The examples are those of the package, one of each kind and country."""
    differing = {}
    for country in phonenumbers.SUPPORTED_REGIONS:
        for kind in (PhoneNumberType.MOBILE, PhoneNumberType.FIXED_LINE):
            if example := phonenumbers.example_number_for_type(country, kind):
                forms = (PhoneNumberFormat.INTERNATIONAL, PhoneNumberFormat.NATIONAL, PhoneNumberFormat.RFC3966)
                plus = phonenumbers.format_number(example, PhoneNumberFormat.E164)
                others = [phonenumbers.format_number(example, form) for form in forms]
                written = [plus, *others, f"00{plus[1:]}", plus[1:]]
                if len({traits(country, mobile=number).mobile for number in written}) > 1:
                    differing[country] = written
    assert differing == {}


# ---------------------------------------------------------------- too many of one name


@pytest.fixture
def people(stores: Mapping[str, str]) -> People:
    client = aws.client("dynamodb")
    documents, links = Documents(client, stores["People"]), Links(client, stores["Links"])
    return People(documents, links, "acme", "k-3", lambda: 1_795_000_000.0)


def seen(people: People, number: int, *, connector_id: str | None = None, person_id: str | None = None) -> Recognised:
    found = stored(people, traits(email=f"{number}@mail.example"), connector_id=connector_id, person_id=person_id)
    assert found is not None
    return found


def stored(
    people: People, traits: Traits, *, connector_id: str | None = None, person_id: str | None = None
) -> Recognised | None:
    """Who it is, after what is new of the person was written."""
    found = people.look(traits, person_id=person_id, connector_id=connector_id)
    if found and (writes := found.writes("op_1")):
        people.documents._client.transact_write_items(TransactItems=writes)
    return found


def test_everybody_is_recognised_when_there_are_as_many_as_there_may_be(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_NAMESAKES", 5)
    new = [seen(people, number) for number in range(5)]
    again = [seen(people, number) for number in range(5)]
    assert not any(one.known or one.crowded for one in new)
    assert [one.person_id for one in again] == [one.person_id for one in new]


def test_another_is_a_new_person_with_a_warning_when_there_are_too_many(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_NAMESAKES", 5)
    known = [seen(people, number) for number in range(5)]
    one, other = seen(people, 6), seen(people, 6)
    assert [(found.known, found.crowded, found.namesake) for found in (one, other)] == [(False, True, True)] * 2
    assert one.person_id != other.person_id  # hence the warning
    assert seen(people, 6, person_id=one.person_id).person_id == one.person_id
    assert seen(people, 3) == Recognised(known[3].person_id, known=True)


def test_one_who_has_an_id_of_the_connectors_is_recognised_when_there_are_too_many(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_NAMESAKES", 5)
    for number in range(5):
        seen(people, number)
    one = seen(people, 6, connector_id="u-6")
    again = seen(people, 7, connector_id="u-6")
    assert (again.person_id, again.known) == (one.person_id, True)


def test_there_is_a_place_again_when_somebody_has_another_name(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_NAMESAKES", 5)
    first, *_ = [seen(people, number) for number in range(5)]
    renamed = Hasher(KEY, "PL").traits({"firstname": "Eva", "lastname": "Nowak", "email": "eva@mail.example"})
    assert stored(people, renamed, person_id=first.person_id)
    assert not seen(people, 6).crowded
    assert seen(people, 6).known


# ---------------------------------------------------------------- a person is erased


def test_nothing_is_left_of_an_erased_person_and_the_namesakes_stay(people: People) -> None:
    one, other = seen(people, 1), seen(people, 2)
    assert people.erase(one.person_id)
    assert one.person_id not in str(people.documents._client.scan(TableName=people.documents._table))
    assert seen(people, 2).person_id == other.person_id
    assert not seen(people, 1).known


def test_the_last_of_a_name_leaves_no_document(people: People) -> None:
    assert people.erase(seen(people, 1).person_id)
    assert people.documents._client.scan(TableName=people.documents._table)["Items"] == []


def test_nobody_is_erased_who_is_not_there(people: People) -> None:
    assert not people.erase("p_nobody")


def test_an_erased_person_does_not_come_back_by_a_save_that_had_read_it(people: People) -> None:
    person = seen(people, 1).person_id
    renamed = Hasher(KEY, "PL").traits({"firstname": "Eva", "lastname": "Nowak"})
    found = people.look(renamed, person_id=person, connector_id=None)
    assert found
    people.erase(person)
    with pytest.raises(ClientError, match="ConditionalCheckFailed"):
        people.documents._client.transact_write_items(TransactItems=found.writes("op_1"))
    assert people.look(renamed, person_id=person, connector_id=None) is None


def test_a_full_document_is_far_below_what_the_table_takes(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_NAMESAKES", 20)
    for number in range(20):
        assert not seen(people, number).crowded
    [item] = [
        item
        for item in people.documents._client.scan(TableName=people.documents._table)["Items"]
        if "name" in item["document"]["S"].split("#")
    ]
    per_person = len(str(item)) / 20  # the notation of a type is longer than what is billed
    assert per_person * 1000 < 300_000


# ---------------------------------------------------------------- the id of somebody new


def derived(people: People, connector_id: str = "u-1") -> str:
    return Hasher(KEY).person_id(people.tenant, people.club_id, connector_id)


def looked(people: People, connector_id: str, **options: Any) -> Recognised:
    options = {"derived_id": derived(people, connector_id), **options}
    found = people.look(traits(email="a@mail.example"), person_id=None, connector_id=connector_id, **options)
    assert found
    return found


def test_somebody_new_gets_the_id_that_is_derived_from_the_connectors(people: People) -> None:
    assert looked(people, "u-1").person_id == derived(people)
    assert re.fullmatch("p_[0-9a-f]{32}", derived(people))
    ids = {
        Hasher(key).person_id(*of, "u-1") for key in (KEY, "another") for of in (("a", "k"), ("a#k", ""), ("b", "k"))
    }
    assert len(ids) == 6


def test_a_person_is_read_in_one_call_when_the_id_is_the_derived_one(people: People) -> None:
    new = looked(people, "u-1")
    people.documents._client.transact_write_items(TransactItems=new.writes("op_1"))
    client: Any = people.documents._client
    real, calls = client._make_api_call, []

    def counted(name: str, arguments: dict[str, object]) -> object:
        calls.append(name)
        return real(name, arguments)

    client._make_api_call = counted
    assert looked(people, "u-1") == Recognised(new.person_id, known=True)
    assert len(calls) == 1
    assert looked(people, "u-1", derived_id="p_of_another_key").person_id == new.person_id


def test_somebody_new_gets_another_id_when_something_is_left_of_who_had_the_derived_one(people: People) -> None:
    people.documents.write({"left": Change(Document(), {"of": "an event that was erased"})})
    left = replace(people, also=lambda one: [people.documents.reading("left" if one == derived(people) else one)])
    found = looked(left, "u-1")
    assert not found.known
    assert found.person_id != derived(people)
    assert looked(replace(people, besides=[people.documents.reading("left")]), "u-1").person_id == derived(people)


def test_a_person_is_renamed_when_there_is_no_document_of_the_old_name(people: People) -> None:
    person = seen(people, 1).person_id
    people.documents.write({key: Change(people.documents.get(key), None) for key in [name_key(people)]})
    renamed = Hasher(KEY, "PL").traits({"firstname": "Eva", "lastname": "Nowak", "email": "1@mail.example"})
    with pytest.raises(ClientError, match="ConditionalCheckFailed"):
        stored(people, renamed, person_id=person)
    found = people.look(renamed, person_id=person, connector_id=None, again=True)
    assert found
    people.documents._client.transact_write_items(TransactItems=found.writes("op_1"))
    assert stored(people, renamed) == Recognised(person, known=True)


def name_key(people: People) -> str:
    return people._name_key(people.club_id, traits().name)

"""Which texts are one id, and which cannot be one."""

import json
import re
import sys
import unicodedata
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from crm_bridge.fields import IN_CSV, Id, compared
from crm_bridge.ids import UNSEEN, canonical, canonical_key, forms, trimmed
from crm_bridge.storage.links import joined
from crm_bridge.storage.operation import operation_id
from crm_bridge.vendors.connector_settings import ConnectorSettings
from openapi.schemas import components
from tests.documented import validator


class Record(BaseModel):
    id: Id


def is_documented(value: object) -> bool:
    schema = {"$ref": "#/$defs/Record", "$defs": components({Record}, set())}
    return validator(json.dumps(schema).replace("#/components/schemas/", "#/$defs/")).is_valid({"id": value})


PLACEHOLDERS = (
    *("undefined", "null", "None", "NaN", "#N/A", "{{contact.id}}", "{!Account.Id}", "${customer.id}"),
    *("[object Object]", "nil", "(null)", "<null>", "%customer_id%", "$customer_id", "[[id]]", "#REF!", "#VALUE!"),
    *("<%= id %>", "{% id %}", "#{id}", "{id}", "{0}", "<id>", "*|ID|*", "<NA>", "#DIV/0!", "#ADR!", "Err:502"),
    *("00000000-0000-0000-0000-000000000000", "{00000000-0000-0000-0000-000000000000}", "000000000000000AAA"),
    *("C-{{id}}", "1.23457E+15", "1E+20", " undefined ", "N/A", "False", "Infinity", "#NULL!", "#BEZUG!", "nat"),
)


@pytest.mark.parametrize("placeholder", PLACEHOLDERS)
def test_a_placeholder_is_refused_and_so_it_is_documented(placeholder: str) -> None:
    with pytest.raises(ValidationError, match="must be an id, not a placeholder"):
        Record(id=placeholder)
    assert not is_documented(placeholder)


@pytest.mark.parametrize(
    "real",
    [
        *("0", "NA", "ND", "Null-1", "Nilsson", "None-7", "#1001", "C%20", "100%", "A{1}", "{1001}", "$100", "a$b"),
        *("<abc@host.example>", "undefined-1", "E+15", "12E5", "#1!", "Order #5", "[1]", "Err:5", "{abc-1}", "ns:1"),
        *("{abcdefab-abcd-abcd-abcd-abcdefabcdef}", "00000000-0000-0000-0000-000000000001", "Zażółć", "a b", "👍"),
    ],
)
def test_an_id_is_accepted_when_it_only_resembles_a_placeholder(real: str) -> None:
    assert Record(id=real).id == real
    assert is_documented(real)


def test_every_character_without_a_picture_is_unseen() -> None:
    """Of the categories that have none; the class has more, which Unicode calls default ignorable."""
    found = {chr(code) for code in range(sys.maxunicode + 1) if re.match(f"[{UNSEEN}]", chr(code))}
    assert not {
        chr(code)
        for code in range(sys.maxunicode + 1)
        if unicodedata.category(chr(code)) in ("Cc", "Cf", "Zl", "Zp") and chr(code) not in found
    }
    assert {unicodedata.category(character) for character in found} <= {"Cc", "Cf", "Zl", "Zp", "Mn", "Lo", "So", "Cn"}
    assert not any(character.isalnum() and character not in "\u115f\u1160\u3164\uffa0" for character in found)


@pytest.mark.parametrize(
    "code", [0x200B, 0x200E, 0xFEFF, 0x202E, 0xAD, 0x2060, 0xFE0F, 0xE0041, 0x34F, 0x3164, 0x0A, 0x07]
)
def test_an_unseen_character_is_refused_inside_and_removed_at_the_ends(code: int) -> None:
    character = chr(code)
    with pytest.raises(ValidationError, match=rf"U\+{code:04X} \(position 4\)"):
        Record(id=f" C-{character}1")
    assert not is_documented(f"C-{character}1")
    assert Record(id=f"{character} C-1{character}").id == "C-1"
    with pytest.raises(ValidationError, match="at least 1 character"):
        Record(id=character * 2)


@given(st.text(st.characters(codec="utf-8"), max_size=20))
def test_an_id_that_is_accepted_begins_and_ends_with_what_can_be_seen(text: str) -> None:
    try:
        found = trimmed(text)
    except ValueError:
        return
    assert not re.search(f"[{UNSEEN}]", found)
    assert found == found.strip()
    assert found in text


# ---------------------------------------------------------------------- one form

SALESFORCE = (
    *("0012A00001aaAaaQAE", "0012000001A10aAAAR", "a0D30000001n7PiEAI"),  # the tests of a public converter
    *("0012000001A1AA0AAN", "0012000001AAaa1AAD"),
    *(
        "a0BA0000000L2ZCMA0",
        "70130000001tcyIAAQ",
    ),  # gist.github.com/marz619/674d36bb90f1cb91a72486741c6d692c and others
    *("ka36S0000006qgKQAQ", "a2x800000001gzuAAA"),  # forcedotcom/cli#1642, SalesforceFoundation/NPSP#1802
)


def written_suffix(record: str) -> str:
    """Another way to say the same: each five characters from right to left are a number in binary."""
    parts = [record[at : at + 5] for at in (0, 5, 10)]
    numbers = [int("".join("1" if "A" <= letter <= "Z" else "0" for letter in reversed(part)), 2) for part in parts]
    return "".join("ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"[number] for number in numbers)


@pytest.mark.parametrize("long", SALESFORCE)
def test_a_salesforce_id_is_one_in_all_forms_that_its_suffix_proves(long: str) -> None:
    assert {
        canonical(form) for form in (long, long[:15], long.upper(), long.lower(), long[:15] + long[15:].lower())
    } == {long[:15]}
    assert {*forms(long.lower())} == {long, long[:15], long.lower()}
    assert forms(long[:15]) == [long[:15], long]


records = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", min_size=15, max_size=15)


@given(records)
def test_every_record_of_salesforce_is_recognised_by_its_suffix(record: str) -> None:
    long = record + written_suffix(record)
    for form in (record, long, long.upper(), long.lower()):
        assert canonical(form) == record
        assert set(forms(form)) >= {record, long}


@given(records, records)
def test_two_records_are_never_one_when_they_differ_in_a_letters_case(one: str, other: str) -> None:
    assert (canonical(one + written_suffix(one)) == canonical(other + written_suffix(other))) is (one == other)


@pytest.mark.parametrize(
    "text", ["70130000001tcyIAAA", "70130000001tcyIAAZ", "123456789012345678", "ABC", "ka36S0000006qgKQA-"]
)
def test_an_id_is_left_as_it_is_when_its_suffix_proves_nothing(text: str) -> None:
    assert canonical(text) == text
    assert forms(text) == [text]


@given(st.uuids())
def test_a_guid_is_one_in_every_form(guid: uuid.UUID) -> None:
    plain = str(guid)
    for form in (plain, guid.hex, guid.urn, f"{{{plain}}}", f"({plain})", f"{{{guid.hex}}}"):
        assert {canonical(form), canonical(form.upper())} == {plain}
    assert set(forms(f"{{{plain}}}")) == {plain, plain.upper(), f"{{{plain}}}"}


@pytest.mark.parametrize(
    "text",
    [
        *(
            "6F9619FF8B86-D011-B42D-00CF4FC964FF",
            "{6F9619FF-8B86-D011-B42D-00CF4FC964FF",
            "(6F9619FF-8B86-D011-B42D-00CF4FC964FF}",
        ),
        *(
            "6F9619FF-8B86-D011-B42D-00CF4FC964FG",
            "6F9619FF-8B86-D011-B42D-00CF4FC964F",
            "X-6F9619FF-8B86-D011-B42D-00CF4FC964FF",
        ),
    ],
)
def test_an_id_keeps_its_case_when_it_is_no_guid(text: str) -> None:
    assert canonical(text) == text


def test_an_event_is_the_same_when_a_part_of_its_key_is_in_another_form() -> None:
    guid = "6f9619ff-8b86-d011-b42d-00cf4fc964ff"
    keys = [joined("salesforce", "customer", "1", form) for form in (guid, guid.upper(), f"{{{guid}}}")]
    assert len({operation_id("acme", "key_link", key) for key in keys}) == 1
    assert canonical_key(joined("a#b", guid.upper())) == joined("a#b", guid)
    assert operation_id("acme", "key_link", "C-1") != operation_id("acme", "key_link", "c-1")


def test_a_command_says_the_same_when_only_the_form_of_an_id_differs() -> None:
    short, long = Record(id="ka36S0000006qgK"), Record(id="ka36S0000006qgKQAQ")
    assert compared(short) == compared(long)
    assert short.model_dump_json() != long.model_dump_json()
    assert long.model_dump() == {"id": "ka36S0000006qgKQAQ"}


@pytest.mark.parametrize(
    ("cell", "read"),
    [
        ("1001.0", "1001"),
        (" 1001.00 ", "1001"),
        ("1001,0", "1001"),
        ("1.000", "1.000"),
        ("1001.5", "1001.5"),
        ("v1.0", "v1.0"),
    ],
)
def test_a_number_in_csv_is_the_id_without_its_zeros(cell: str, read: str) -> None:
    assert Record.model_validate({"id": cell}, context=IN_CSV).id == read
    assert Record.model_validate({"id": cell}).id == cell.strip()


@pytest.mark.parametrize("form", ["{6F9619FF-8B86-D011-B42D-00CF4FC964FF}", "6f9619ff8b86d011b42d00cf4fc964ff", "k-3"])
def test_a_club_is_found_when_the_address_has_its_guid_in_another_form(form: str) -> None:
    clubs = {
        "k-3": {"connector_id": "6F9619FF-8B86-D011-B42D-00CF4FC964FF"},
        "K-3": {"connector_id": "6f9619ff-8b86-d011-b42d-00cf4fc964fe"},
    }
    connector = ConnectorSettings.model_validate({"client_id": "c", "clubs": clubs, "match_key": "k" * 32})
    assert connector.club(form) == "k-3"
    assert connector.club("6F9619FF-8B86-D011-B42D-00CF4FC964F0") is None

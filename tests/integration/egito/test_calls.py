"""The requests of Egito's client, and what it makes of the responses: saves, records, lists, errors, lost answers."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import pytest
from werkzeug.wrappers import Request, Response

from crm_bridge.errors import (
    ContractBrokenError,
    MaybeDoneError,
    NoSuchRecordError,
    NotDoneError,
    RefusedError,
    SignInRefusedError,
    TryLaterError,
    VendorError,
)
from crm_bridge.vendors.egito import MAX_PAGES, Egito, EgitoEntry, usable_id
from local.vendors.egito import TOKEN_PATH, EgitoSimulator
from local.vendors.simulator import Kind
from tests.integration.egito.conftest import PASSWORD, REST, WRONA, Connect, Wire, answer

FORM = "application/x-www-form-urlencoded"
TOO_LONG = {"firstName": "x" * 300, "lastName": " "}
MISTAKES = "Egito: lastName: may not be empty; firstName: size must be between 0 and 255"
FORMATS = ("json", "form")
CITY = {"city": "Kraków"}

type ErrorShape = Literal["strings", "objects", "default_messages"]
type ListShape = Literal["array", "list", "items", "data", "rows"]
type Shape = Literal["plain", "data", "entity", "rows", "result", "array", "nested"]
type Missing = Literal["errors", "404", "null", "empty"]

FAILURES: list[tuple[ErrorShape, int]] = [
    (shape, status) for shape in get_args(ErrorShape.__value__) for status in (200, 400)
]
"""In which Egito says what is wrong."""


@contextmanager
def fails(error: type[VendorError], case: object = "", **expected: object) -> Iterator[None]:
    """It is just this error, with these attributes."""
    with pytest.raises(error) as caught:
        yield
    assert {name: getattr(caught.value, name) for name in expected} == expected, case


def create(connect: Connect) -> str:
    return connect().create("Contact", WRONA)


# ---------------------------------------------------------------- what is sent


def test_a_call_is_json_unless_settings_say_otherwise(wire: Wire, connect: Connect) -> None:
    fields = {"lastName": "Wrona", "owner": {"id": 7, "team": {"name": "A&B"}}, "active": True, "phones": ["1", "2"]}
    wire.calls_answer(200, {"id": 5})
    connect().create("Contact", fields)
    connect(body_format="form").create("Contact", {**fields, "none": None})
    as_json, as_form = wire.at(f"{REST}/Contact/create")
    assert (as_json.method, as_json.kind, json.loads(as_json.body)) == ("POST", "application/json", fields)
    assert (as_form.method, as_form.kind) == ("POST", FORM)
    nested = [("owner.id", "7"), ("owner.team.name", "A&B"), ("active", "true"), ("phones[0]", "1"), ("phones[1]", "2")]
    assert as_form.form == [("lastName", "Wrona"), *nested, ("none", "")]


def test_a_record_that_would_be_a_very_much_larger_form_is_refused_and_not_sent(wire: Wire, connect: Connect) -> None:
    client = connect(body_format="form")
    with pytest.raises(RefusedError, match="too large to be sent as a form"):
        client.create("Contact", {"address": {"n" * 50_000: {str(number): 0 for number in range(7000)}}})
    assert wire.at(f"{REST}/Contact/create") == []


def test_questions_are_asked_with_get(wire: Wire, connect: Connect) -> None:
    client = connect()
    client.record("User", "7")
    client.records("User")
    client.dictionary("leadSource")
    assert [(asked.method, asked.path, asked.query, asked.body) for asked in wire.asked[1:]] == [
        ("GET", f"{REST}/User/get", [("id", "7")], b""),
        ("GET", f"{REST}/User/list", [], b""),
        ("GET", f"{REST}/SelectDictionary/list", [("type", "leadSource")], b""),
    ]


def test_record_is_made_and_read(egito: EgitoSimulator, connect: Connect) -> None:
    fields = {"firstName": "Zoë & Co", "lastName": 'Wrona "/+%&ß', "email": ""}
    number = 5000
    for egito.answers_only_id in (True, False):
        for body_format in FORMATS:
            number += 1
            client = connect(body_format=body_format)
            assert client.create("Contact", fields) == str(number)
            record = client.record("Contact", str(number))
            assert {name: record[name] for name in ("id", *fields)} == {"id": number, **fields}
            assert len(egito.records["Contact"]) == number - 5000


def test_ids_are_texts_whatever_they_are_at_egito(egito: EgitoSimulator, connect: Connect) -> None:
    ids: tuple[Literal["number", "text"], ...] = ("number", "text")
    for egito.ids in ids:
        client = connect()
        made = client.create("Lead", WRONA)
        assert made == str(egito.records["Lead"][0]["id"])
        assert client.record("Lead", made)["lastName"] == "Wrona"
        assert client.update("Lead", made, CITY)
        client.delete_record("Lead", made)
        assert egito.records["Lead"] == []


# ---------------------------------------------------------------- what is refused


def test_refused_in_readable_words_when_a_save_fails(egito: EgitoSimulator, connect: Connect) -> None:
    egito.add("Contact", lastName="Wrona")
    for egito.error_shape, egito.error_status in FAILURES:
        for body_format in FORMATS:
            client, expected = connect(body_format=body_format), {"message": MISTAKES, "status": egito.error_status}
            with fails(RefusedError, **expected):
                client.create("Contact", TOO_LONG)
            with fails(RefusedError, **expected):
                client.update("Contact", "5001", TOO_LONG)
            with fails(RefusedError, **{**expected, "message": "Egito: name: may not be empty"}):
                client.create_entry("leadSource", "")
    assert [record["lastName"] for record in egito.records["Contact"]] == ["Wrona"]


def test_refused_in_readable_words_when_a_right_is_missing(egito: EgitoSimulator, connect: Connect) -> None:
    egito.add("Contact", lastName="Wrona")
    client = connect()
    calls: dict[str, Callable[[], object]] = {
        "create": lambda: client.create("Contact", {"lastName": "Lis"}),
        "get": lambda: client.record("Contact", "5001"),
        "list": lambda: client.dictionary("leadSource"),
        "update": lambda: client.update("Contact", "5001", CITY),
        "delete": lambda: client.delete_record("Contact", "5001"),
    }
    for egito.error_shape, egito.error_status in FAILURES:
        for method, call in calls.items():
            egito.forbidden = {("Contact", method), ("SelectDictionary", method)}
            with pytest.raises(RefusedError, match=r"^Egito: Access denied") as caught:
                call()
            assert caught.value.status == egito.error_status, method


WORDS: tuple[tuple[object, str], ...] = (
    (["a", "b"], "a; b"),
    ([{"field": "x", "code": "NotBlank"}], "x: NotBlank"),
    ([{"field": "x", "message": "m", "code": "c"}, "b"], "x: m; b"),
    ([{"defaultMessage": "m"}], "m"),
    ({"lastName": ["may not be empty", "is odd"]}, "lastName: may not be empty; is odd"),
    ({"message": "m"}, "m"),
    ("just text", "just text"),
    ([{"field": "x"}], "field: x"),
    ([None], "it did not say why"),
    ([""], "it did not say why"),
    ([["a"], ["b"]], "a; b"),
    ([7], "7"),
    (["<b>bold</b>"], "it did not say why"),
)


def test_refused_in_egitos_words_however_it_tells_them(wire: Wire, connect: Connect) -> None:
    for status in (200, 201, 400, 404, 409, 422):
        for errors, words in WORDS:
            wire.calls_answer(status, {"errors": errors})
            with fails(RefusedError, errors, message=f"Egito: {words}", status=status):
                create(connect)
    none: tuple[object, ...] = ([], None, {}, "", False)
    for nothing in none:
        wire.calls_answer(200, {"id": "5", "errors": nothing})
        assert create(connect) == "5"


def test_a_status_counts_more_than_errors(wire: Wire, connect: Connect) -> None:
    for status, error in ((403, SignInRefusedError), (429, NotDoneError), (500, MaybeDoneError), (502, MaybeDoneError)):
        wire.calls_answer(status, {"errors": ["x"], "id": 5})
        with fails(error, status=status):
            create(connect)


def test_refused_when_there_is_no_such_record(egito: EgitoSimulator, connect: Connect) -> None:
    client = connect()
    for egito.error_shape, egito.error_status in FAILURES:
        for egito.missing_record in get_args(Missing.__value__):
            with fails(NoSuchRecordError):
                client.record("Contact", "1")
            with fails(NoSuchRecordError):
                client.update("Contact", "1", WRONA)
            with fails(RefusedError, message="Egito: Object not found"):
                client.delete_record("Contact", "1")
    assert [seen for seen in egito.seen if seen.path.endswith("/update")] == []


# ---------------------------------------------------------------- one record


def test_record_is_read_and_saved_whatever_holds_it(egito: EgitoSimulator, connect: Connect) -> None:
    client = connect()
    for egito.record_shape in get_args(Shape.__value__):
        egito.missing_record = "errors"
        record_id = client.create("Contact", {**WRONA, "city": "Opole"})
        assert client.record("Contact", record_id)["lastName"] == "Wrona"
        assert client.update("Contact", record_id, CITY) is True
        record = egito.records["Contact"][-1]
        assert (record["id"], record["lastName"], record["city"]) == (int(record_id), "Wrona", "Kraków")
        egito.missing_record = "null"
        with fails(NoSuchRecordError):
            client.update("Contact", "1", CITY)


FIVE: tuple[object, ...] = (
    *({"CONTACT": {"id": 5}}, {"success": True, "data": {"id": 5}}, {"item": {"id": "5"}}, [{"id": 4}, {"id": 5}]),
    *({"data": [{"id": 4}, {"id": 5}, {"id": 6}]}, [{"data": {"id": 5}}], {"data": {"rows": [{"id": 5}]}}),
    {"id": 5, "data": {"id": 6}},
)
NOTHING: tuple[object, ...] = ({}, [], {"data": None}, {"data": {}}, {"rows": [], "total": 0}, {"result": {"data": []}})
SOMETHING_ELSE: tuple[object, ...] = (
    *({"id": 6}, WRONA, {"id": None}, {"data": WRONA}, {"payload": {"id": 5}}, [{"id": 4}, {"id": 6}]),
    *({"data": None, "message": "No connection to the database"}, {"id": 6, "item": {"id": 5}}),
    *({"data": {"data": {"data": {"data": {"id": 5}}}}}, {"data": "5"}, ["5"], "5", 5),
)


def test_record_is_found_in_other_wrappers_or_is_none(wire: Wire, connect: Connect) -> None:
    for body in FIVE:
        wire.calls_answer(200, body)
        assert usable_id(connect().record("Contact", "5")) == "5", body
    for status, nothing in [*((200, body) for body in NOTHING), (204, b"")]:
        wire.calls_answer(status, nothing)
        with fails(NoSuchRecordError, nothing):
            connect().record("Contact", "5")


def test_contract_broken_when_egito_shows_something_else(wire: Wire, connect: Connect) -> None:
    """It does not prove that the record is gone, so an update waits instead of being refused."""
    for body in SOMETHING_ELSE:
        wire.calls_answer(200, body)
        with pytest.raises(ContractBrokenError, match="unknown form"):
            connect().record("Contact", "5")
        with pytest.raises(NotDoneError, match="unknown form"):
            connect().update("Contact", "5", CITY)
    for page in (b"<html>Down for maintenance</html>", b"OK", b'{"id": 5'):
        wire.calls_answer(200, page, "text/html")
        with fails(ContractBrokenError, page):
            connect().record("Contact", "5")
        with fails(NotDoneError, page):
            connect().update("Contact", "5", CITY)
    for status in (302, 500, 503):
        wire.calls_answer(status, b"")
        with fails(NotDoneError, status):
            connect().update("Contact", "5", CITY)
    assert wire.at(f"{REST}/Contact/update") == []


def test_update_keeps_what_it_does_not_change(egito: EgitoSimulator, connect: Connect) -> None:
    """Also a text that is masked wherever it is shown."""
    for egito.blanks_missing in (True, False):
        for egito.answers_only_id in (True, False):
            for body_format in FORMATS:
                before = egito.add("Contact", firstName="Ola", lastName="Wrona", email="ola@a.example", notes=PASSWORD)
                changes = {**CITY, "email": ""}
                client = connect(body_format=body_format)
                assert client.update("Contact", str(before["id"]), changes) is True
                assert egito.records["Contact"][-1] == {**before, **changes}


def test_update_sends_only_what_changes_something(egito: EgitoSimulator, wire: Wire, connect: Connect) -> None:
    egito.add("Contact", firstName="Ola", lastName="Wrona")
    assert connect().update("Contact", "5001", {**WRONA, "city": ""}) is False
    assert connect().update("Contact", "5001", {}) is False
    assert [asked.path for asked in wire.asked if asked.path != TOKEN_PATH] == [f"{REST}/Contact/get"] * 2
    assert connect().update("Contact", "5001", {"nickname": None}) is True  # which the record does not show
    [asked] = wire.at(f"{REST}/Contact/update")
    assert json.loads(asked.body)["nickname"] is None


def test_a_record_is_deleted(egito: EgitoSimulator, connect: Connect) -> None:
    egito.add("Contact", lastName="Wrona")
    egito.add("Contact", lastName="Lis")
    connect().delete_record("Contact", "5001")
    assert [record["lastName"] for record in egito.records["Contact"]] == ["Lis"]


NO_IDS: tuple[object, ...] = (
    *({}, {"id": None}, {"id": ""}, {"id": True}, {"id": 1.5}, {"id": {"id": 5}}, {"id": "x" * 201}),
    *({"payload": {"id": 5}}, [{"id": 5}, {"id": 6}], 5, None, b"", b"<html></html>", b'{"id": 5'),
)


def test_contract_broken_when_a_save_answers_no_id(wire: Wire, connect: Connect) -> None:
    for number, body in enumerate(NO_IDS, start=1):
        wire.calls_answer(200, body)
        with fails(ContractBrokenError, body):
            create(connect)
        assert len(wire.at(f"{REST}/Contact/create")) == number

    def respond(request: Request) -> Response:
        return answer(200, {"id": 5}) if request.path.endswith("/get") else Response(status=204)

    wire.on_call = respond
    client = connect()
    saves: tuple[Callable[[], object], ...] = (
        lambda: client.create("Contact", WRONA),
        lambda: client.update("Contact", "5", WRONA),
        lambda: client.delete_record("Contact", "5"),
    )
    for save in saves:
        with fails(ContractBrokenError):
            save()


# ---------------------------------------------------------------- lists


def test_records_are_listed_in_any_shape(egito: EgitoSimulator, wire: Wire, connect: Connect) -> None:
    client = connect()
    for egito.list_shape in get_args(ListShape.__value__):
        assert [record["id"] for record in client.records("User")] == [7, 8, 9]
        assert client.records("Contact") == []
        found = client.dictionary("leadSource")
        assert [(entry.id, entry.name) for entry in found] == [("1", "Website"), ("2", "Walk-in")]
        assert client.dictionary("unknown") == []
    for body in ({"User": [{"id": 7}]}, {"result": [{"id": 7}]}, {"data": {"rows": [{"id": 7}]}, "total": 1}):
        wire.calls_answer(200, body)
        assert client.records("User") == [{"id": 7}]


NO_LISTS: tuple[object, ...] = (
    *(
        None,
        7,
        "text",
        {},
        {"list": None},
        {"list": {"1": {}}},
        ["text"],
        [[1]],
        {"records": []},
        b"",
        b"<html>",
        b"[{",
    ),
)


def test_contract_broken_when_a_list_is_none(wire: Wire, connect: Connect) -> None:
    for body in NO_LISTS:
        wire.calls_answer(200, body)
        with fails(ContractBrokenError, body):
            connect().records("User")


PAGING = {"page": "page", "size": "size", "page_size": 3}


def test_all_pages_are_read(egito: EgitoSimulator, connect: Connect) -> None:
    egito.page_parameters = ("page", "size")
    shapes: tuple[ListShape, ...] = ("array", "list")
    for egito.list_shape in shapes:
        egito.records["Contact"].clear()
        made: list[Any] = []
        for count in (0, 1, 2, 3, 4, 6, 7):
            made += [egito.add("Contact", lastName=f"Lis {number}") for number in range(len(made), count)]
            assert connect(paging=PAGING).records("Contact") == made


def test_pages_are_asked_for_as_settings_say(egito: EgitoSimulator, wire: Wire, connect: Connect) -> None:
    egito.page_parameters = ("nr", "rows")
    for number in range(3):
        egito.add("Contact", lastName=f"Lis {number}")
    connect(paging={"page": "nr", "size": "rows", "page_size": 2}).records("Contact", {"club": "A"})
    asked = [dict(asked.query) for asked in wire.at(f"{REST}/Contact/list")]
    assert asked == [{"club": "A", "nr": str(number), "rows": "2"} for number in (1, 2, 3)]
    pages = {"0": [{"id": 1}], "1": [{"id": 2}]}
    wire.on_call = lambda request: answer(200, pages.get(request.args["page"], []))
    assert connect(paging={**PAGING, "first": 0}).records("Contact") == [{"id": 1}, {"id": 2}]


def test_every_record_is_listed_once_when_pages_are_ignored_or_overlap(wire: Wire, connect: Connect) -> None:
    wire.calls_answer(200, [{"id": 1}, {"id": 2}])
    client = connect(paging=PAGING)
    assert client.records("Contact") == [{"id": 1}, {"id": 2}]
    assert len(wire.at(f"{REST}/Contact/list")) == 2
    wire.on_call = lambda request: answer(200, [{"id": number} for number in range(int(request.args["page"]), 5)])
    assert [record["id"] for record in client.records("Contact")] == [1, 2, 3, 4]


def test_contract_broken_when_a_list_does_not_end(wire: Wire, connect: Connect) -> None:
    wire.on_call = lambda request: answer(200, [{"id": request.args["page"]}])
    with pytest.raises(ContractBrokenError, match="Egito's list of Contact does not end"):
        connect(paging=PAGING).records("Contact")
    assert len(wire.at(f"{REST}/Contact/list")) == MAX_PAGES


def test_entries_of_a_dictionary_are_made_and_changed(egito: EgitoSimulator, connect: Connect) -> None:
    for number, body_format in enumerate(FORMATS, start=5001):
        client = connect(body_format=body_format)
        made = client.create_entry("leadSource", "Flyer & Co")
        *_, entry = client.dictionary("leadSource")
        assert (entry.id, entry.name) == (made, "Flyer & Co") == (str(number), "Flyer & Co")
        client.update_entry("leadSource", entry, "Poster")
        assert egito.dictionaries["leadSource"][-1] == {"id": number, "name": "Poster"}
    assert [entry["name"] for entry in egito.dictionaries["industry"]] == ["Sports", "Education"]


def test_entries_are_understood_whatever_their_name_is_called(wire: Wire, connect: Connect) -> None:
    entries: list[dict[str, Any]] = [
        {"id": 1, "name": "A"},
        {"id": "2", "value": "B"},
        {"id": 3, "name": "", "label": "C"},
        {"id": 4},
        {"name": "D"},
    ]
    wire.calls_answer(200, entries)
    client = connect()
    found = client.dictionary("leadSource")
    assert found == [EgitoEntry(str(n), name, entries[n - 1]) for n, name in ((1, "A"), (2, "B"), (3, "C"))]

    wire.calls_answer(200, {})
    client.update_entry("leadSource", found[1], "B2")
    [asked] = wire.at(f"{REST}/SelectDictionary/update")
    assert json.loads(asked.body) == {"id": "2", "value": "B2", "type": "leadSource"}


# ---------------------------------------------------------------- lost answers


def spoil(egito: EgitoSimulator, kind: Kind, method: Literal["GET", "POST"] = "POST") -> None:
    if kind is Kind.REFUSE:
        egito.stop()
    else:
        egito.fail(kind, seconds=1, method=method)


@pytest.mark.parametrize(
    ("kind", "error", "made"),
    [
        (Kind.CLOSE_BEFORE, MaybeDoneError, 0),
        (Kind.CLOSE_AFTER, MaybeDoneError, 1),
        (Kind.ERROR_BEFORE, MaybeDoneError, 0),
        (Kind.ERROR_AFTER, MaybeDoneError, 1),
        (Kind.HTML, MaybeDoneError, 0),
        (Kind.TOO_MANY, TryLaterError, 0),
        (Kind.UNAVAILABLE, TryLaterError, 0),
        (Kind.UNAVAILABLE_AFTER, TryLaterError, 1),
        (Kind.REFUSE, NotDoneError, 0),
    ],
)
def test_error_says_what_may_have_happened_when_a_create_fails(
    egito: EgitoSimulator, connect: Connect, kind: Kind, error: type[VendorError], made: int
) -> None:
    for number, body_format in enumerate(FORMATS, start=1):
        client = connect(body_format=body_format)
        if kind is not Kind.REFUSE or number == 1:
            client.records("User")
            spoil(egito, kind)
        with pytest.raises(VendorError) as caught:
            client.create("Contact", WRONA)
        assert type(caught.value) is error
        assert len(egito.records["Contact"]) == made * number
    assert egito.token_requests == ["password"] * (1 if kind is Kind.REFUSE else 2)


@pytest.mark.usefixtures("quick")
def test_maybe_done_when_the_answer_to_a_create_comes_too_late(egito: EgitoSimulator, connect: Connect) -> None:
    connect().records("User")
    egito.fail(Kind.DELAY, seconds=2)
    with fails(MaybeDoneError):
        connect(seconds=1).create("Contact", WRONA)


LOST = (Kind.CLOSE_BEFORE, Kind.CLOSE_AFTER, Kind.ERROR_BEFORE, Kind.ERROR_AFTER, Kind.HTML, Kind.TOO_MANY, Kind.REFUSE)
QUESTIONS: tuple[Callable[[Egito], object], ...] = (
    lambda client: client.record("User", "7"),
    lambda client: client.records("User"),
    lambda client: client.dictionary("leadSource"),
)


@pytest.mark.parametrize("kind", LOST)
def test_not_done_when_the_answer_to_a_question_is_lost(egito: EgitoSimulator, connect: Connect, kind: Kind) -> None:
    client = connect()
    client.records("User")
    for ask in QUESTIONS:
        spoil(egito, kind, "GET")
        with fails(NotDoneError):
            ask(client)

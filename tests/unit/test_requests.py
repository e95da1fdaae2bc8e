"""The table of requests, on moto and on the twin in memory: once in quarantine, found by ids, nothing unbounded."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from crm_bridge import aws
from crm_bridge.errors import FieldError, StorageError
from crm_bridge.mapping import shape_of
from crm_bridge.storage.api_keys import new_api_key
from crm_bridge.storage.requests import (
    LONGEST_ID,
    MOST_IDS,
    MOST_LOOKED_AT,
    Requests,
    RequestState,
    StoredRequest,
    ids_in,
    place_in_time,
    shape_as_json,
)
from local.template import Template
from tests.clock import Clock
from tests.memory import MemoryDynamoDb

SALESFORCE = "001xx000003DGb2AAG"
"""With its suffix; the first 15 are the same id."""

API_KEY = new_api_key()


@pytest.fixture(params=["memory", "moto"])
def requests(request: pytest.FixtureRequest, clock: Clock, template: Template) -> Requests:
    if request.param == "moto":
        stores: Mapping[str, str] = request.getfixturevalue("stores")
        return Requests(aws.client("dynamodb"), stores["Requests"], clock)
    resources: Any = template.stores({})["Resources"]
    client: Any = MemoryDynamoDb({"Requests": resources["RequestsTable"]["Properties"]})
    return Requests(client, "Requests", clock)


def refused(requests: Requests, tenant: str = "acme", **changes: Any) -> StoredRequest:
    members = {"route": "POST /jobs", "sender": "CRM", "status": 422, "problem": "invalid", "request_id": "r-1"}
    one = requests.new(tenant, RequestState.REFUSED, 30, **{**members, **changes})
    requests.keep(one)
    return one


def bad(requests: Requests, tenant: str = "acme", event_key: str = "e-1", **changes: Any) -> StoredRequest:
    members = {"route": "POST /in", "sender": "crm", "status": 422, "problem": "invalid", "request_id": "r-1"}
    members |= {"event_key": event_key, "content_hash": "c-1", "payload": "{}"}
    return requests.new(tenant, RequestState.QUARANTINED, 30, **{**members, **changes})


def everything(requests: Requests) -> list[dict[str, Any]]:
    client: Any = requests._client
    found: list[dict[str, Any]] = client._make_api_call("Scan", {"TableName": requests._table})["Items"]
    return found


def listed(requests: Requests, tenant: str = "acme", **changes: Any) -> tuple[list[StoredRequest], str | None]:
    asked: dict[str, Any] = {"limit": 10, "first": "0", "last": "g", "filters": {}, "after": None}
    return requests.listed(tenant, **{**asked, **changes})


def test_a_request_is_found_by_its_id_and_by_those_that_it_carried(requests: Requests) -> None:
    one = refused(requests, ids=("T-1", SALESFORCE), errors=(FieldError("a", "is required"),))
    assert requests.get("acme", one.id) == one
    for carried in ("T-1", " T-1 ", SALESFORCE, SALESFORCE[:15]):
        assert requests.of("acme", carried) == [one]
    assert requests.of("acme", "T-2") == requests.of("other", "T-1") == []
    assert requests.get("other", one.id) is None
    assert (one.expires_at - one.received_at) == 30 * 86_400


def test_a_list_is_over_when_it_would_go_on_out_of_its_bounds(requests: Requests) -> None:
    one = refused(requests)
    for place in ("0" * 32, "f" * 32):
        assert listed(requests, first=one.at, last=one.at, after=place) == ([], None)
        assert listed(requests, after=place)[0] == ([one] if place > one.at else [])


def test_a_request_is_found_when_its_id_is_longer_than_what_is_stored_of_it(requests: Requests) -> None:
    longest = "😀" * 1000  # more bytes than DynamoDB takes in a key
    one = refused(requests, ids=ids_in({"ticket_id": longest}))
    assert requests.of("acme", longest) == [one]


def test_tenants_whose_names_begin_alike_are_kept_apart(requests: Requests) -> None:
    refused(requests, "acme", ids=("1",))
    refused(requests, "acme-2", ids=("1",))
    assert [one.tenant for one in listed(requests)[0]] == ["acme"]
    assert [one.tenant for one in requests.of("acme-2", "1")] == ["acme-2"]


def test_an_event_is_in_quarantine_once_whatever_became_of_it(requests: Requests) -> None:
    first = bad(requests)
    assert requests.quarantine(first)
    assert not requests.quarantine(bad(requests))
    assert requests.quarantine(bad(requests, event_key="e-2"))
    assert requests.quarantine(bad(requests, content_hash="another"))
    assert not requests.quarantine(bad(requests, content_hash="another"))
    assert requests.quarantine(bad(requests, sender="another"))
    assert requests.quarantine(bad(requests, "other"))
    assert requests.change(first, RequestState.DISCARDED, "Ada")
    assert not requests.quarantine(bad(requests))
    assert len(listed(requests)[0]) == 4


def test_a_quarantine_is_ended_once_and_its_payload_is_deleted(requests: Requests) -> None:
    one = bad(requests, payload='{"name": "Ada"}')
    requests.quarantine(one)
    assert requests.change(one, RequestState.SENT, "Ada", "op_1")
    assert not requests.change(one, RequestState.DISCARDED, "Bob")
    ended = requests.get("acme", one.id)
    assert ended
    assert (ended.state, ended.changed_by, ended.operation_id, ended.payload) == ("sent", "Ada", "op_1", None)


def test_a_write_whose_response_was_lost_is_no_other_event(requests: Requests) -> None:
    """The AWS client repeats it, and it fails on its own first success."""
    one = bad(requests, ids=("T-1",))
    assert requests.quarantine(one)
    assert requests.quarantine(one)


def test_pages_go_on_until_the_end_and_filters_leave_out(requests: Requests, clock: Clock) -> None:
    made = []
    for number in range(5):
        made.append(refused(requests, status=404 if number % 2 else 422))
        clock.move(1)
    newest = [one.id for one in reversed(made)]
    page, after = listed(requests, limit=2)
    rest, end = listed(requests, limit=10, after=after)
    assert ([one.id for one in page + rest], end) == (newest, None)
    assert [one.id for one in listed(requests, filters={"status": 404})[0]] == [made[3].id, made[1].id]
    between = listed(requests, first=place_in_time(made[1].received_at), last=place_in_time(made[3].received_at))[0]
    assert [one.id for one in between] == [made[2].id, made[1].id]


def test_nothing_is_left_of_what_is_erased(requests: Requests) -> None:
    quarantined, other = bad(requests, ids=("T-1", "C-1")), refused(requests, ids=("C-1",))
    requests.quarantine(quarantined)
    requests.erase(quarantined)
    assert requests.of("acme", "C-1") == [other]
    assert requests.of("acme", "T-1") == []
    assert len(everything(requests)) == 2
    assert requests.quarantine(bad(requests, ids=("T-1",)))


def test_a_failure_of_the_table_says_nothing_of_what_was_sent(
    requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise ClientError({"Error": {"Code": "ValidationException", "Message": "T-1 is wrong"}}, "BatchWriteItem")

    monkeypatch.setattr(requests._client, "batch_write_item", fail)
    with pytest.raises(StorageError) as error:
        refused(requests, ids=("T-1",))
    assert "T-1" not in str(error.value)


def test_what_was_not_written_is_written_again_or_fails(requests: Requests, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def throttled(RequestItems: dict[str, list[Any]]) -> dict[str, Any]:  # noqa: N803 - AWS's name
        (items,) = RequestItems.values()
        asked.append(len(items))
        return {"UnprocessedItems": RequestItems}

    monkeypatch.setattr(requests._client, "batch_write_item", throttled)
    with pytest.raises(StorageError):
        refused(requests, ids=("T-1",))
    assert asked == [2, 2, 2]


# ---------------------------------------------------------------------- what is read of a body


@pytest.mark.parametrize(
    ("body", "ids"),
    [
        ({"ticket_id": "T-1", "name": "Ada"}, ("T-1",)),
        ({"clientNumber": 7, "ticketId": "x", "valid": "no", "paid": True}, ("7", "x")),
        ([{"site": {"site_id": "in"}, "id": "out"}], ("out", "in")),
        ({"id": None, "order_id": " ", "a_id": True, "b_id": 1.5, "c_id": {"id": 0}}, ("0",)),
        ("text", ()),
        (None, ()),
        ({"id": 300 * "x"}, (LONGEST_ID * "x",)),
        ({"authorId": 5, "public_id": 6, "card_id": 7, "issueKey": "A-1", "numberId": 8}, ("5", "6", "7", "A-1", "8")),
        *(
            ({name: "very private"}, ())
            for name in (
                "api_key",
                "apiKey",
                "APIKey",
                "accessKey",
                "private_key_id",
                "SECRET_KEY",
                "Session-Id",
                "sessionID",
                "token_ref",
                "licenseNumber",
                "phone_number",
                "mobilePhoneNumber",
                "CardNumber",
                "passport_number",
            )
        ),
        *(
            ({name: "7"}, ("7",))
            for name in ("access_point_id", "accessRequestId", "private_customer_id", "license_ref", "phone_id")
        ),
        ({"id": API_KEY, "ticket_id": f" {API_KEY}\n", "order_id": f"{API_KEY}x"}, (f"{API_KEY}x",)),
    ],
)
def test_ids_are_what_members_that_are_called_so_hold(body: object, ids: tuple[str, ...]) -> None:
    assert ids_in(body) == ids


def test_the_ids_of_the_path_come_first() -> None:
    assert ids_in({"id": "b"}, ["a", API_KEY]) == ("a", "b")
    assert len(ids_in({f"{n}_id": n for n in range(99)}, ["a"])) == MOST_IDS


def test_no_more_of_a_body_is_looked_at_than_a_thousand_values() -> None:
    deep: Any = [[] for _ in range(MOST_LOOKED_AT)]
    assert ids_in([*deep, {"id": "late"}]) == ()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["id", "a_id", "xId"]), inner),
    max_leaves=30,
)


@given(JSON)
def test_whatever_a_body_is_its_ids_are_few_and_its_shape_has_no_value(body: Any) -> None:
    found = ids_in(body)
    assert len(found) <= MOST_IDS
    assert all(0 < len(one) <= LONGEST_ID for one in found)
    shape = shape_as_json(shape_of(body))
    if shape is None:
        return

    def kinds(value: object) -> bool:
        if isinstance(value, dict):
            return all(map(kinds, value.values()))
        if isinstance(value, list):
            return len(value) <= 3 and all(map(kinds, value))
        return value in ("text", "number", "true or false", "null")

    assert kinds(json.loads(shape))

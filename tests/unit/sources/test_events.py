"""The events of a request: how many there are, what each has in it, and its key."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from crm_bridge.errors import UnauthenticatedError
from crm_bridge.sources import (
    PRESETS,
    Incoming,
    SourceEvent,
    SourceSettings,
    answer,
    content_hash,
    receive,
    try_again,
)
from local.source_requests import prove, sample

NOW = 1_795_000_000.0
SECRET = "whsec_" + "c2VjcmV0IG9mIGEgc2VuZGVy" + "MDEy"
EVENTS = [{"flow": "create_site", "version": "1", "expression": "{customer_id: id}"}]
VALUES = {"user": "bridge", "organization_id": "00DX00000000001", "url": "https://bridge.example/in/acme/crm"}


def settings(preset: str, **changes: object) -> SourceSettings:
    used = next(iter(PRESETS[preset].proofs.values()))
    needed = {name: value for name, value in VALUES.items() if name in used.needs}
    return SourceSettings.model_validate({"preset": preset, "secrets": [SECRET], "events": EVENTS, **needed, **changes})


def events(preset: str, body: object, headers: Mapping[str, str] | None = None, **changes: object) -> list[SourceEvent]:
    source = settings(preset, **changes)
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {**PRESETS[preset].sample_headers, **(headers or {})}
    return receive(source, prove(source, Incoming("POST", sent, {}, content), NOW), NOW)


def key(preset: str, body: object, headers: Mapping[str, str] | None = None, **changes: object) -> str:
    [event] = events(preset, body, headers, **changes)
    return event.key


def made_by(preset: str) -> Any:
    made = json.loads(PRESETS[preset].sample)
    return made[0] if isinstance(made, list) else made


# ---------------------------------------------------------------- keys


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("hubspot-app", "555|company.creation|4242||||1790000000000|77"),
        ("zendesk", "77|zen:event-type:ticket.status_changed|aaaa1111-0000-4000-8000-000000000000"),
        ("salesforce-flow", "001X00000000001AAA 2026-03-01T10:00:00Z"),
        ("salesforce-outbound", "00DX00000000001|04lX00000000003"),
        ("pipedrive-v2", "9|3|11111111-2222-3333-4444-555555555555"),
        ("pipedrive-v1", "9|3|added.person|55|1790000000000000"),
        ("upya", "T-0001||K-19|C-88|Open|2026-03-01T10:00:00.000Z"),
        ("stripe-like", "|customer.created|evt_55"),
        ("standard-webhooks", "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W"),
        ("svix", "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W"),
        ("cloudevents", "/crm/demo|e-1"),
    ],
)
def test_key_is_what_the_sender_gives(preset: str, expected: str) -> None:
    source = settings(preset)
    assert [event.key for event in receive(source, sample(source, NOW), NOW)] == [expected]


@pytest.mark.parametrize(
    "preset", ["hubspot-workflow", "zoho-workflow", "freshdesk", "power-automate", "shopify", "github", "in-house"]
)
def test_key_is_a_hash_when_the_sender_gives_nothing_to_rely_on(preset: str) -> None:
    source = settings(preset)
    [event] = receive(source, sample(source, NOW), NOW)
    assert len(event.key) == 64


def test_key_of_hubspot_tells_apart_what_has_the_same_event_id() -> None:
    one = made_by("hubspot-app")
    others = [
        {**one, "portalId": 556},
        {**one, "subscriptionType": "company.propertyChange", "propertyName": "a"},
        {**one, "subscriptionType": "company.propertyChange", "propertyName": "b"},
        {**one, "objectId": 4243},
        {**one, "occurredAt": 1790000000001},
        {**one, "eventId": 78},
    ]
    assert len({event.key for event in events("hubspot-app", [one, *others])}) == 7


@pytest.mark.parametrize(
    ("preset", "attempt"),
    [
        ("hubspot-app", lambda one, number: {**one, "attemptNumber": number}),
        ("pipedrive-v2", lambda one, number: {**one, "meta": {**one["meta"], "attempt": number}}),
        ("pipedrive-v1", lambda one, number: {**one, "retry": number}),
        ("stripe-like", lambda one, number: {**one, "pending_webhooks": number}),
    ],
)
@pytest.mark.parametrize("is_complete", [True, False])
def test_key_and_content_stay_the_same_when_the_sender_tries_again(
    preset: str, attempt: Any, is_complete: bool
) -> None:
    one = made_by(preset)
    if not is_complete:  # then the key is a hash
        one = {**one, "objectId": None, "id": None, **({"meta": {"action": "added"}} if "meta" in one else {})}
    tries = [attempt(one, number) for number in (1, 2)]
    assert len({content_hash(settings(preset), event) for event in tries}) == 1
    assert content_hash(settings(preset), {**one, "name": "Another"}) != content_hash(settings(preset), one)
    keys = {key(preset, event) for event in tries}
    assert len(keys) == 1
    assert (len(keys.pop()) == 64) is not is_complete


def test_key_of_a_signed_body_does_not_depend_on_a_header_that_anybody_can_change() -> None:
    for preset, name in (("github", "x-github-delivery"), ("shopify", "x-shopify-webhook-id")):
        one = made_by(preset)
        assert key(preset, one, {name: "1"}) == key(preset, one, {name: "2"})


def test_key_is_of_the_sources_own_parts_when_it_names_some() -> None:
    parts = ["type", "id", "header:x-run", "items[*].id"]
    body = {"type": "a", "id": 7, "items": [{"id": 1}, {"id": 2}]}
    assert key("in-house", body, {"x-run": "r"}, key=parts) == "a|7|r|[1,2]"


def test_key_is_a_hash_when_one_part_is_missing() -> None:
    parts = ["type", "header:x-run"]
    assert len(key("in-house", {"type": "a"}, key=parts)) == 64
    assert len(key("in-house", {"type": None}, {"x-run": "r"}, key=parts)) == 64
    assert len(key("in-house", {"type": 7}, {"x-run": "r"}, key=["contains(type, 'a')"])) == 64


def test_keys_differ_when_their_parts_do() -> None:
    keys = [key("in-house", body, key=["a", "b"]) for body in ({"a": "x|y", "b": "z"}, {"a": "x", "b": "y|z"})]
    assert len({*keys}) == 2


def test_hash_is_the_same_in_whatever_order_the_members_are() -> None:
    assert key("in-house", b'{"a": 1, "b": [2]}') == key("in-house", b'{ "b":[2],"a":1 }')
    assert key("in-house", b'{"a": 1}') != key("in-house", b'{"a": 2}')


def test_key_is_hashed_when_it_is_long() -> None:
    assert len(key("in-house", {"id": "x" * 501}, key=["id"])) == 64
    assert key("in-house", {"id": "x" * 500}, key=["id"]) == "x" * 500


@pytest.mark.parametrize("odd", ["\n", "\0", "\u202e"])
def test_key_is_hashed_when_it_cannot_be_displayed(odd: str) -> None:
    assert len(key("in-house", {"id": odd}, key=["id"])) == 64


# ---------------------------------------------------------------- several events


def test_zoho_names_several_records_and_each_becomes_an_event() -> None:
    source = settings("zoho-notification")
    found = receive(source, sample(source, NOW), NOW)
    assert [event.key for event in found] == [
        f"1001|1790000000000|Contacts|update|{record}" for record in ("900001", "900002")
    ]
    shared = {"server_time": 1790000000000, "module": "Contacts", "operation": "update", "channel_id": "1001"}
    assert [event.payload for event in found] == [
        {**shared, "id": "900001", "values": {"Phone": "000"}},
        {**shared, "id": "900002", "values": None},
    ]


@pytest.mark.parametrize("ids", [None, "900001", {"a": 1}])
def test_what_zoho_sends_is_one_event_when_it_names_no_records(ids: object) -> None:
    [event] = events("zoho-notification", {**made_by("zoho-notification"), "ids": ids})
    assert isinstance(event.payload, dict)
    assert "token" not in event.payload


def test_records_of_upya_are_read_from_data_too() -> None:
    one = made_by("upya")
    for body in ([one, one], {"data": [one, one]}):
        assert [event.payload for event in events("upya", body)] == [one, one]


def test_events_of_github_and_shopify_have_their_topic() -> None:
    for preset, name in (("github", "x-github-event"), ("shopify", "x-shopify-topic")):
        [event] = events(preset, {"id": 1}, {name: "topic"})
        assert isinstance(event.payload, dict)
        headers = event.payload["headers"]
        assert isinstance(headers, dict)
        assert (headers[name], event.payload["body"]) == ("topic", {"id": 1})


# ---------------------------------------------------------------- Salesforce


def outbound(count: int) -> bytes:
    start, _, rest = PRESETS["salesforce-outbound"].sample.partition(b"<Notification>")
    one, _, end = rest.partition(b"</Notification>")
    return start + b"".join(
        b"<Notification>" + one.replace(b"04lX00000000003", b"04lX%011d" % number) + b"</Notification>"
        for number in range(count)
    ) + end  # fmt: skip


@pytest.mark.parametrize("count", [0, 1, 2, 100])
def test_each_notification_of_salesforce_is_an_event(count: int) -> None:
    found = events("salesforce-outbound", outbound(count))
    assert [event.key for event in found] == [f"00DX00000000001|04lX{number:011d}" for number in range(count)]


def test_notification_of_salesforce_has_its_record_but_no_session() -> None:
    body = outbound(1).replace(b'<SessionId xsi:nil="true"/>', b"<SessionId>session</SessionId>")
    [event] = events("salesforce-outbound", body)
    assert event.payload == {
        "OrganizationId": "00DX00000000001",
        "ActionId": "04kX00000000002",
        "Id": "04lX00000000000",
        "sObject": {
            "@type": "Case",
            "Id": "500X00000000004",
            "CaseNumber": "00001077",
            "Status": "New",
            "AccountId": "001X00000000005",
        },
    }


def test_organization_of_salesforce_is_known_by_both_forms_of_its_id() -> None:
    body = outbound(1)
    for written, configured in (("70130000001tcyI", "70130000001tcyIAAQ"), ("70130000001tcyIAAQ", "70130000001tcyI")):
        sent = body.replace(b"00DX00000000001", written.encode())
        assert events("salesforce-outbound", sent, organization_id=configured)
    with pytest.raises(UnauthenticatedError):
        events(
            "salesforce-outbound",
            body.replace(b"00DX00000000001", b"70130000001TCYI"),
            organization_id="70130000001tcyI",
        )


# ---------------------------------------------------------------- responses


COUNTS = {"stored": 3, "repeated": 1, "quarantined": 1, "ignored": 2}


@pytest.mark.parametrize("preset", PRESETS)
def test_response_is_one_that_the_sender_understands(preset: str) -> None:
    source = settings(preset)
    accepted, again = answer(source, COUNTS), try_again(source)
    if preset == "salesforce-outbound":
        for response, ack in ((accepted, "true"), (again, "false")):
            assert (response.status, response.headers["Content-Type"]) == (200, "text/xml; charset=utf-8")
            assert f"<Ack>{ack}</Ack>" in str(response.body)
        return
    assert accepted.status == (202 if preset in ("standard-webhooks", "svix", "cloudevents") else 200)
    assert accepted.body == COUNTS
    assert (again.status, again.headers["Retry-After"]) == (503, "30")


@pytest.mark.parametrize("preset", PRESETS)
def test_response_has_the_status_that_the_source_sets(preset: str) -> None:
    for wanted in PRESETS[preset].answers:
        status = answer(settings(preset, answer=wanted), COUNTS).status
        assert status == (202 if wanted == "async 202" else 200)

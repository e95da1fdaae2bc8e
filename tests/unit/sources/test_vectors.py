"""Signatures that others have made, of their own examples, are accepted; and theirs accept ours."""

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook

from crm_bridge.errors import NotJsonError, UnauthenticatedError
from crm_bridge.sources import Incoming, SourceSettings, receive
from local.source_requests import prove

HUBSPOT = "yyyyyyyy-yyyy-yyyy-yyyy-yyyyyyyyyyyy"
ADDRESS = "https://www.example.com/webhook_uri"
CREATION = (
    b'[{"eventId":1,"subscriptionId":12345,"portalId":62515,"occurredAt":1564113600000,'
    b'"subscriptionType":"contact.creation","attemptNumber":0,"objectId":123,"changeSource":"CRM","changeFlag":"NEW",'
    b'"appId":54321}]'
)
EVENTS = [{"flow": "create_site", "version": "1", "expression": "{customer_id: id}"}]
SVIX = "whsec_" + "plJ3nmyCDGBKInavdOK15jsl"
STANDARD = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def source(**values: object) -> SourceSettings:
    return SourceSettings.model_validate({"events": EVENTS, **values})


def hubspot(proof: str) -> SourceSettings:
    return source(preset="hubspot-app", proof=proof, secrets=[HUBSPOT], url=ADDRESS)


def signed(signature: str) -> Mapping[str, str]:
    return {"content-type": "application/json", "x-hubspot-signature": signature}


def holds(settings: SourceSettings, incoming: Incoming, now: float) -> bool:
    """Return whether the proof holds. Not every example has a body that has events in it."""
    try:
        receive(settings, incoming, now)
    except UnauthenticatedError:
        return False
    except NotJsonError:
        return True
    return True


VECTORS = {
    # https://developers.hubspot.com/docs/faq/v1-request-validation
    "HubSpot v1": (
        hubspot("v1"),
        Incoming("POST", signed("232db2615f3d666fe21a8ec971ac7b5402d33b9a925784df3ca654d05f4817de"), {}, CREATION),
        0,
    ),
    # https://developers.hubspot.com/docs/faq/v2-request-validation
    "HubSpot v2, GET": (
        hubspot("v2"),
        Incoming("GET", signed("eee2dddcc73c94d699f5e395f4b9d454a069a6855fbfa152e91e88823087200e"), {}, b""),
        0,
    ),
    "HubSpot v2, POST": (
        hubspot("v2"),
        Incoming(
            "POST",
            signed("9569219f8ba981ffa6f6f16aa0f48637d35d728c7e4d93d0d52efaa512af7900"),
            {},
            b'{"example_field":"example_value"}',
        ),
        0,
    ),
    # https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
    "GitHub": (
        source(preset="github", secrets=["It's a Secret to Everybody"]),
        Incoming(
            "POST",
            {"x-hub-signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"},
            {},
            b"Hello, World!",
        ),
        0,
    ),
    # https://docs.svix.com/receiving/verifying-payloads/how-manual
    "Svix": (
        source(preset="svix", secrets=[SVIX]),
        Incoming(
            "POST",
            {
                "svix-id": "msg_loFOjxBNrRLzqYUf",
                "svix-timestamp": "1731705121",
                "svix-signature": "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=",
            },
            {},
            b'{"event_type":"ping","data":{"success":true}}',
        ),
        1731705121,
    ),
    # https://github.com/standard-webhooks/standard-webhooks/blob/main/libraries/javascript/src/webhook.test.ts
    "Standard Webhooks": (
        source(preset="standard-webhooks", secrets=[STANDARD]),
        Incoming(
            "POST",
            {
                "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
                "webhook-timestamp": "1614265330",
                "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            },
            {},
            b'{"test": 2432232314}',
        ),
        1614265330,
    ),
}


@pytest.mark.parametrize("name", VECTORS)
def test_published_example_is_accepted(name: str) -> None:
    settings, incoming, now = VECTORS[name]
    assert holds(settings, incoming, now)


@pytest.mark.parametrize("name", VECTORS)
def test_published_example_is_refused_when_one_byte_of_its_body_differs(name: str) -> None:
    settings, incoming, now = VECTORS[name]
    other = Incoming(incoming.method, incoming.headers, {}, incoming.body + b" ")
    assert not holds(settings, other, now)


def test_example_of_hubspot_is_refused_when_it_was_sent_elsewhere() -> None:
    _, incoming, now = VECTORS["HubSpot v2, POST"]
    elsewhere = source(preset="hubspot-app", proof="v2", secrets=[HUBSPOT], url=ADDRESS + "2")
    assert not holds(elsewhere, incoming, now)


def test_an_older_signature_of_hubspot_does_not_replace_the_newest() -> None:
    _, incoming, now = VECTORS["HubSpot v1"]
    assert not holds(hubspot("v3"), incoming, now)


@pytest.mark.parametrize("secret", [STANDARD, "whsec_" + base64.b64encode(bytes(range(64))).decode()])
@pytest.mark.parametrize("body", ['{"type":"a"}', '{"name":"Zażółć"}', "[]"])
def test_signature_of_the_standard_webhooks_library_is_accepted(secret: str, body: str) -> None:
    sent_at = datetime(2026, 3, 1, 10, tzinfo=UTC)
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(sent_at.timestamp())),
        "webhook-signature": Webhook(secret).sign("msg_1", sent_at, body),
    }
    settings = source(preset="standard-webhooks", secrets=[secret])
    events = receive(settings, Incoming("POST", headers, {}, body.encode()), sent_at.timestamp())
    assert [event.key for event in events] == ["msg_1"] * len(events)


def test_what_we_sign_is_accepted_by_the_standard_webhooks_library() -> None:
    settings = source(preset="standard-webhooks", secrets=[STANDARD])
    body = b'{"type":"a"}'
    incoming = prove(settings, Incoming("POST", {"webhook-id": "m"}, {}, body), datetime.now(UTC).timestamp())
    assert Webhook(STANDARD).verify(body, dict(incoming.headers)) == json.loads(body)


@pytest.mark.parametrize(
    ("signatures", "is_accepted"),
    [
        ("v1,{good}", True),
        ("v1,AAAA v1,{good}", True),
        ("v1a,{good} v1,{good}", True),
        ("v2,{good}", False),
        ("v1a,{good}", False),
        ("{good}", False),
        ("v1,{good},v1,{good}", False),
        ("v1,{unpadded}", False),
        ("v1, {good}", False),
        (" ".join(["v1,AAAA"] * 10 + ["v1,{good}"]), False),
    ],
)
def test_one_signature_of_a_short_list_must_be_right(signatures: str, is_accepted: bool) -> None:
    settings, incoming, now = VECTORS["Svix"]
    good = incoming.headers["svix-signature"].removeprefix("v1,")
    listed = signatures.format(good=good, unpadded=good.rstrip("="))
    request = Incoming("POST", {**incoming.headers, "svix-signature": listed}, {}, incoming.body)
    assert holds(settings, request, now) is is_accepted


def test_refused_when_a_signed_part_could_be_two() -> None:
    """The id, the time and the body are separated by a full stop, so it must not be in the id."""
    secret, now = STANDARD, 1614265330
    settings = source(preset="standard-webhooks", secrets=[secret])
    body = f"{now}." + '{"a": 1}'
    signature = Webhook(secret).sign("msg", datetime.fromtimestamp(now, UTC), body)
    assert holds(settings, Incoming("POST", headers("msg", now, signature), {}, body.encode()), now)
    shifted = Incoming("POST", headers(f"msg.{now}", now, signature), {}, b'{"a": 1}')
    assert not holds(settings, shifted, now)


def headers(webhook_id: str, now: int, signature: str) -> dict[str, str]:
    return {"webhook-id": webhook_id, "webhook-timestamp": str(now), "webhook-signature": signature}

"""A source's settings are checked when they are stored: what could never work is refused, and no secret is shown."""

import json
from typing import Any

import pytest
from pydantic import JsonValue, TypeAdapter, ValidationError

from crm_bridge.errors import InvalidError
from crm_bridge.sources import PRESETS, EventRoute, SourceSettings

SECRET = "the-secret-of-a-sender"
ROUTE = {"flow": "create_site", "version": "1", "expression": "{customer_id: id}"}
IN_HOUSE: dict[str, Any] = {"preset": "in-house", "secrets": [SECRET], "events": [ROUTE]}
SIGNATURE = {"header": "x-signature", "parts": ["timestamp", "body"], "separator": ".", "timestamp": "x-time"}
BASIC = {"preset": "pipedrive-v2", "user": "bridge"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"preset": "siebel"}, "must be one of"),
        ({"proof": "query"}, "proof must be one of header, bearer, basic"),
        ({"answer": "sync"}, "async 200"),
        ({"answer": "soap ack"}, "answer must be one of async 200, async 202"),
        ({"preset": "power-automate", "answer": "async 202"}, "answer must be one of async 200"),
        ({"secrets": []}, "at least 1"),
        ({"secrets": [SECRET, SECRET + "2", SECRET + "3"]}, "at most 2"),
        ({"secrets": [SECRET, SECRET]}, "the same"),
        ({"secrets": ["short"]}, "at least 16"),
        ({"secrets": [SECRET + " "]}, "printable ASCII"),
        ({"preset": "standard-webhooks"}, "must be whsec_ in base64"),
        ({"preset": "standard-webhooks", "secrets": ["whsec_" + "AAAA" * 6 + "!"]}, "must be whsec_ in base64"),
        ({"preset": "standard-webhooks", "secrets": ["whsec_" + "AAAA" * 5]}, "at least 16 bytes"),
        ({"preset": "hubspot-app"}, "needs url"),
        ({"preset": "hubspot-app", "url": "https://bridge.example/in/a?key=1"}, "scheme, host and path"),
        ({"preset": "hubspot-app", "url": "https://bridge.example/in/%41"}, "must not contain %"),
        ({"preset": "hubspot-app", "url": "http://bridge.example/in"}, "https"),
        ({"preset": "pipedrive-v2"}, "needs user"),
        ({**BASIC, "user": "a:b"}, "printable ASCII"),
        ({**BASIC, "header": "x-key"}, "does not use header"),
        ({"preset": "salesforce-outbound"}, "needs organization_id"),
        ({"preset": "salesforce-outbound", "organization_id": "00DX0000000000"}, "pattern"),
        ({"header": "X-Key"}, "pattern"),
        ({"certificates": ["ab" * 31 + "g0"]}, "64 hexadecimal digits"),
        ({"certificates": ["ab" * 31]}, "at least 64"),
        ({"certificates": ["ab" * 32, "cd" * 32, "ef" * 32]}, "at most 2"),
        ({"key": ["id", "header:x-id", "id["]}, "JMESPath"),
        ({"key": []}, "at least 1"),
        ({"events": []}, "at least 1"),
        ({"events": [{**ROUTE, "when": "type = 'x'"}]}, "JMESPath"),
        ({"events": [{**ROUTE, "expression": "upper(id)"}]}, "which JMESPath does not have"),
        ({"events": [{**ROUTE, "flow": "Create Site"}]}, "pattern"),
        ({"tolerance": 59}, "60"),
        ({"tolerance": 901}, "900"),
        ({"invalid": "drop"}, "quarantine"),
        ({"adress": "x"}, "Extra"),
        ({"signature": SIGNATURE, "proof": "header"}, "instead of proof"),
        ({"preset": "github", "signature": SIGNATURE}, "own system only"),
        ({"signature": {**SIGNATURE, "parts": ["timestamp"]}}, "must contain body"),
        ({"signature": {**SIGNATURE, "parts": ["body"]}}, "give timestamp"),
        ({"signature": {**SIGNATURE, "timestamp": None}}, "give timestamp"),
        ({"signature": {**SIGNATURE, "digest": "sha256"}}, "secret is a part"),
        ({"signature": {**SIGNATURE, "parts": ["secret", "timestamp", "body"]}}, "secret is a part"),
        ({"signature": {"header": "x-s", "parts": ["header:x-id", "body"]}}, "give a separator"),
        ({"signature": {**SIGNATURE, "digest": "md5"}}, "hmac-sha256"),
        ({"signature": {**SIGNATURE, "algorithm": "x"}}, "Unexpected"),
        ({"signature": {**SIGNATURE, "parts": ["method", "url", "timestamp", "body"]}}, "needs url"),
    ],
)
def test_refused_when_it_could_not_work(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as refused:
        SourceSettings.model_validate({**IN_HOUSE, **changes})
    assert said in str(refused.value)
    assert SECRET not in str(refused.value)


def test_no_secret_is_shown() -> None:
    source = SourceSettings.model_validate({**IN_HOUSE, **BASIC, "secrets": [SECRET, SECRET + "2"]})
    assert SECRET not in repr(source) + json.dumps(source.shown())
    assert source.shown()["secrets"] == ["**********"] * 2


def test_the_schema_names_every_preset() -> None:
    schema = TypeAdapter(SourceSettings).json_schema()
    assert schema["$defs"]["PresetName"]["enum"] == sorted(PRESETS)


def route(**changes: str) -> EventRoute:
    return EventRoute.model_validate({**ROUTE, **changes})


@pytest.mark.parametrize(
    ("when", "is_one"),
    [
        ("type == 'a'", True),
        ("type == 'b'", False),
        ("type", True),
        ("gone", False),
        ("none", False),
        ("zero", True),
        ("no", False),
        ("empty", False),
        ("[]", False),
    ],
)
def test_event_is_of_the_flow_when_the_expression_is_true_in_jmespath(when: str, is_one: bool) -> None:
    """https://jmespath.org/specification.html#or-expressions: false are false, null, and what is empty; 0 is true."""
    payload: dict[str, JsonValue] = {"type": "a", "none": None, "zero": 0, "no": False, "empty": {}}
    assert route(when=when).fits(payload) is is_one
    assert route().fits(payload)


def test_event_is_invalid_when_the_expression_fails_on_it() -> None:
    with pytest.raises(InvalidError) as failed:
        route(when="contains(id, 'x')").fits({"id": 7})
    assert "create_site" in failed.value.detail


def test_event_becomes_the_flows_command_by_the_expression() -> None:
    assert route().mapping.apply("create_site", {"id": 7}) == {"customer_id": 7}
    assert route().mapping.label == "1"

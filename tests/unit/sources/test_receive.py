"""A request of a sender becomes events, or one of the documented errors."""

import json

import pytest

from crm_bridge.errors import UnauthenticatedError
from crm_bridge.sources import Incoming, SourceSettings, answer, receive, try_again

NOW = 1_795_000_000.0
SECRET = "the-secret-of-a-sender"
SETTINGS = {
    "preset": "in-house",
    "secrets": [SECRET],
    "events": [{"flow": "create_site", "version": "1", "expression": "{customer_id: id}"}],
}


def settings(**changes: object) -> SourceSettings:
    return SourceSettings.model_validate({**SETTINGS, **changes})


def incoming(body: object, secret: str = SECRET) -> Incoming:
    return Incoming("POST", {"x-api-key": secret}, {}, json.dumps(body).encode())


def test_is_one_event_when_the_body_is_an_object() -> None:
    [event] = receive(settings(key=["id", "changed"]), incoming({"id": 7, "changed": "today"}), NOW)
    assert (event.key, event.payload) == ("7|today", {"id": 7, "changed": "today"})


def test_is_no_event_when_the_list_is_empty() -> None:
    assert receive(settings(), incoming([]), NOW) == []


def test_refused_when_the_secret_is_wrong() -> None:
    with pytest.raises(UnauthenticatedError):
        receive(settings(), incoming({}, SECRET + "x"), NOW)


def test_counts_are_answered_when_all_is_stored() -> None:
    response = answer(settings(), {"stored": 1, "repeated": 2, "quarantined": 3, "ignored": 4})
    assert (response.status, response.body) == (200, {"stored": 1, "repeated": 2, "quarantined": 3, "ignored": 4})


def test_is_asked_to_repeat_when_not_all_is_stored() -> None:
    response = try_again(settings())
    assert (response.status, response.headers["Retry-After"]) == (503, "30")

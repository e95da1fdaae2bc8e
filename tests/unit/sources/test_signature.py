"""Any scheme of signing can be described, and each of its parts matters."""

import base64
import hashlib
import hmac
from typing import Any

import pytest

from crm_bridge.errors import UnauthenticatedError
from crm_bridge.sources import Incoming, SourceSettings, receive

NOW = 1_795_000_000
SECRET = "0123456789abcdef0123456789ABCDEF"
URL = "https://bridge.example/in/acme/own"
EVENTS = [{"flow": "create_site", "version": "1", "expression": "{customer_id: id}"}]
BODY = b'{"id": 1}'


def source(**signature: Any) -> SourceSettings:
    values = {"preset": "in-house", "secrets": [SECRET], "url": URL, "events": EVENTS}
    return SourceSettings.model_validate({**values, "signature": {"header": "x-sign", **signature}})


def accepted(settings: SourceSettings, headers: dict[str, str], now: float = NOW, body: bytes = BODY) -> bool:
    try:
        receive(settings, Incoming("POST", headers, {}, body), now)
    except UnauthenticatedError:
        return False
    return True


def digest(text: bytes, key: bytes = SECRET.encode(), name: str = "sha256") -> bytes:
    return hmac.new(key, text, name).digest()


@pytest.mark.parametrize(
    ("scheme", "sent"),
    [
        ({}, digest(BODY).hex()),
        ({}, digest(BODY).hex().upper()),
        ({"prefix": "sha256="}, "sha256=" + digest(BODY).hex()),
        ({"encoding": "base64"}, base64.b64encode(digest(BODY)).decode()),
        ({"digest": "hmac-sha512"}, digest(BODY, name="sha512").hex()),
        ({"digest": "sha256", "parts": ["body", "secret"]}, hashlib.sha256(BODY + SECRET.encode()).hexdigest()),
        ({"key": "hex"}, digest(BODY, bytes.fromhex(SECRET)).hex()),
        ({"key": "base64"}, digest(BODY, base64.b64decode(SECRET)).hex()),
        ({"parts": ["method", "url", "body"]}, digest(b"POST" + URL.encode() + BODY).hex()),
        ({"parts": ["method", "body"], "separator": "\n"}, digest(b"POST\n" + BODY).hex()),
        ({"several": ","}, "00, " + digest(BODY).hex()),
    ],
)
def test_signature_is_accepted_when_it_is_made_by_the_scheme(scheme: dict[str, Any], sent: str) -> None:
    settings = source(**scheme)
    assert accepted(settings, {"x-sign": sent})
    assert not accepted(settings, {"x-sign": sent}, body=b'{"id": 2}')
    assert not accepted(settings, {"x-sign": ""})
    assert not accepted(settings, {"x-sign": sent[:-2]})
    assert not accepted(settings, {"x-other": sent})


@pytest.mark.parametrize(
    ("unit", "stamp"),
    [
        ("s", str(NOW)),
        ("ms", f"{NOW}999"),
        ("iso", "2026-11-18T11:06:40Z"),
        ("iso", "2026-11-18T12:06:40.999999999+01:00"),
    ],
)
def test_time_is_read_in_its_unit(unit: str, stamp: str) -> None:
    settings = source(parts=["timestamp", "body"], separator=":\n", timestamp="x-time", unit=unit)
    headers = {"x-sign": digest(f"{stamp}:\n".encode() + BODY).hex(), "x-time": stamp}
    assert [accepted(settings, headers, NOW + late) for late in (-299, 299, -302, 302)] == [True, True, False, False]


@pytest.mark.parametrize(
    "stamp", ["", "-1", "1e9", "inf", "nan", " 1795000000", "١٧٩٥٠٠٠٠٠٠", "9" * 400, "2026-11-18T11:06:40Z"]
)
def test_refused_when_the_time_is_no_number(stamp: str) -> None:
    settings = source(parts=["timestamp", "body"], separator=":", timestamp="x-time")
    assert not accepted(settings, {"x-sign": digest(f"{stamp}:".encode() + BODY).hex(), "x-time": stamp})


@pytest.mark.parametrize(
    "stamp", ["", "today", "2026-11-18T11:06:40", "2026-11-18", "0001-01-01T00:00:00+14:00", str(NOW)]
)
def test_refused_when_the_time_is_not_iso_8601_with_an_offset(stamp: str) -> None:
    settings = source(parts=["timestamp", "body"], separator="\n", timestamp="x-time", unit="iso")
    assert not accepted(settings, {"x-sign": digest(f"{stamp}\n".encode() + BODY).hex(), "x-time": stamp})


def test_refused_when_two_times_are_named() -> None:
    settings = source(parts=["timestamp", "body"], separator=".", timestamp="t=", prefix="v1=", several=",")
    good = digest(f"{NOW}.".encode() + BODY).hex()
    assert accepted(settings, {"x-sign": f"t={NOW},v1={good}"})
    assert accepted(settings, {"x-sign": f"v1=00, t={NOW}, v1={good}"})
    assert not accepted(settings, {"x-sign": f"t={NOW},t={NOW + 1},v1={good}"})
    assert not accepted(settings, {"x-sign": f"v1={good}"})


def test_refused_when_a_signed_header_is_missing_or_has_the_separator() -> None:
    settings = source(parts=["header:x-id", "body"], separator=".")
    for sent, is_accepted in (("a", True), ("", False), ("a.b", False)):
        headers = {"x-id": sent, "x-sign": digest(f"{sent}.".encode() + BODY).hex()}
        assert accepted(settings, headers) is is_accepted


def test_refused_when_another_address_was_signed() -> None:
    settings = source(parts=["method", "url", "body"])
    signed = digest(b"POST" + URL.encode() + BODY).hex()
    assert accepted(settings, {"x-sign": signed, "host": "elsewhere.example"})
    elsewhere = settings.model_copy(update={"url": URL + "2"})
    assert not accepted(elsewhere, {"x-sign": signed})
    with pytest.raises(UnauthenticatedError):
        receive(settings, Incoming("PUT", {"x-sign": signed}, {}, BODY), NOW)

"""What is read from a vendor's response: its JSON, its words without secrets, when to come back, and what it means."""

import html
import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace
from urllib.parse import quote

import pytest

from crm_bridge.errors import (
    AddressMovedError,
    ContractBrokenError,
    MaybeDoneError,
    NotDoneError,
    RefusedError,
    SignInRefusedError,
    TryLaterError,
    VendorError,
)
from crm_bridge.outbound.response import MAX_WORDS, VendorResponse, basic, expect
from crm_bridge.outbound.transport import changing_nothing


def answer(
    body: bytes, *, status: int = 422, secrets: tuple[str, ...] = (), headers: Mapping[str, str] | None = None
) -> VendorResponse:
    return VendorResponse("shop", status, headers or {}, body, secrets)


def error_of(status: int, body: bytes = b"", **headers: str) -> VendorError:
    """The error of a response where 201 is expected."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with pytest.raises(VendorError) as raised:
        expect(answer(body, status=status, headers=named), 201)
    error = raised.value
    assert (error.vendor, error.status) == ("shop", status)
    return error


# ---------------------------------------------------------------- what a status means

MEANINGS: dict[type[VendorError], tuple[int, ...]] = {
    ContractBrokenError: (103, 200, 202, 204, 206, 300, 302, 303, 304, 305, 306, 309, 399),
    RefusedError: (400, 402, 404, 405, 409, 410, 413, 415, 418, 422, 451, 499),
    SignInRefusedError: (401, 403),
    TryLaterError: (429,),
    MaybeDoneError: (408, 500, 502, 503, 504, 507, 599),
}


@pytest.mark.parametrize(("kind", "status"), [(kind, status) for kind, of in MEANINGS.items() for status in of])
def test_the_status_decides_what_may_have_happened(kind: type[VendorError], status: int) -> None:
    error = error_of(status, b"No", Location="https://shop.example/orders")
    assert type(error) is kind
    assert error.message == f"shop answered {status}" + (": No" if status >= 400 else "")
    assert error.retry_after is None
    later = error_of(status, b"No", Retry_After="7")
    assert (type(later), later.retry_after) == (TryLaterError if status == 503 else kind, 7)


def test_a_503_that_names_a_time_to_come_back_did_nothing_even_if_that_is_now() -> None:
    """Without one, a proxy may say so after what is behind it has worked and died."""
    assert type(error_of(503, Retry_After="0")) is TryLaterError
    assert type(error_of(503, Retry_After="soon")) is MaybeDoneError


def test_a_status_that_is_expected_is_no_error() -> None:
    expect(answer(b"", status=404), 200, 404)


def test_what_changes_nothing_is_not_done_when_its_answer_was_lost() -> None:
    with pytest.raises(NotDoneError) as raised, changing_nothing():
        raise MaybeDoneError("lost", vendor="shop", status=500, retry_after=7)
    told = raised.value
    assert (told.message, told.vendor, told.status, told.retry_after) == ("lost", "shop", 500, 7)
    with pytest.raises(ContractBrokenError), changing_nothing():
        raise ContractBrokenError("odd", vendor="shop")


# ---------------------------------------------------------------- an address that has moved

PLACES = {
    "https://api.acme.example/v1/sites": "to api.acme.example",
    "https://API.Acme.example:8443/": "to api.acme.example:8443",
    "//api.acme.example/v1": "to api.acme.example",
    "/v1/sites/": "to another path on the same host",
    "../sites/": "to another path on the same host",
    "?session=s3cret": "to another path on the same host",
    "https://u:s3cret@api.acme.example/Moi-Avenue?key=s3cret#s3cret": "to api.acme.example",
    "https://[2001:db8::1]/v1": "to 2001:db8::1",
}


@pytest.mark.parametrize("status", [301, 307, 308])
def test_not_done_and_only_the_host_is_shown_when_the_address_has_moved(status: int) -> None:
    for location, place in PLACES.items():
        error = error_of(status, b"Moved", Location=location)
        assert type(error) is AddressMovedError
        assert isinstance(error, NotDoneError)
        assert error.message == f"shop answered {status}: the address has moved {place}. Correct its base_url"
    with pytest.raises(AddressMovedError, match=r"to login\.acme"), changing_nothing():
        raise error_of(status, Location="https://login.acme.example/?next=%2Fsites")
    secret = answer(b"", status=status, headers={"Location": "https://s3cret.login.example/"}, secrets=("s3cret",))
    with pytest.raises(AddressMovedError, match=r"the address has moved to \*\*\*\.login\.example\."):
        expect(secret, 201)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_contract_broken_when_a_redirect_names_no_address(status: int) -> None:
    """Such a response is not a redirect: Google's uploads return 308 without a Location after part of the work."""
    locations = ("", " ", "http://[", "//[", "http://a:99999/", "http://a:b:c/", "ftp://acme.example/", "http://*.x/")
    for location in (*locations, "https://B\xfcro.example/"):
        assert type(error_of(status, Location=location)) is ContractBrokenError, location
    assert type(error_of(status, Content_Location="/sites/7")) is ContractBrokenError
    assert type(error_of(status)) is ContractBrokenError


# ---------------------------------------------------------------- JSON


@pytest.mark.parametrize(
    "body",
    [
        *(b'{"a": NaN}', b"[Infinity]", b"[1e999]", b"[" * 100_000, b"[" * 60_000, b"", b"a", b"\xff", b"\xff\xfe\xfd"),
        *(b"created", b"<html></html>", b'{"site_id": 1', b'{"site_id": 1}{}', b"9" * 5000),
    ],
    ids=lambda body: repr(body[:20]),
)
def test_contract_broken_when_the_body_is_no_json(body: bytes) -> None:
    with pytest.raises(ContractBrokenError) as raised:
        answer(body).json()
    told = raised.value
    assert (told.vendor, told.status) == ("shop", 422)
    assert told.message == "shop answered 422 with a body that is not JSON"


def test_json_can_be_stored_when_the_vendor_cut_a_character_in_half() -> None:
    assert answer(rb'{"name": "Shop \ud83d", "place": "B\u00fcro"}').json() == {"name": "Shop ?", "place": "Büro"}


def test_an_answer_shows_nothing_when_it_is_printed() -> None:
    one = answer(b'"Wanjiru"', headers={"X-Echo": "Moi Avenue"}, secrets=("s3cret",))
    assert repr(one) == str(one) == "VendorResponse(vendor='shop', status=422)"


# ---------------------------------------------------------------- words

NO_WORDS: tuple[object, ...] = ({}, [], None, "", 7, True, {"error": {"code": 7}}, {"sent": "a secret"})


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"message": "a", "error": "b"}, "a"),
        ({"message": "", "error": None, "detail": "d"}, "d"),
        ({"error": "b", "error_message": "c"}, "b"),
        ({"error_message": "c", "detail": "d"}, "c"),
        ({"detail": "d", "errors": "e"}, "d"),
        ({"detail": "d", "code": 7}, "d"),
        ({"errors": ["e", {"message": "f"}, 7, ""]}, "e; f"),
        ({"error": {"code": 7, "message": "a"}}, "a"),
        ({"message": {"error": {"detail": "deep"}}}, "deep"),
        ({"message": {"message": {"message": {"message": "as deep as may be"}}}}, "as deep as may be"),
        ({"message": {"message": {"message": {"message": {"message": "deeper"}}}}}, ""),
        ([[[["as deep as may be"]]]], "as deep as may be"),
        ([[[[["deeper"]]]]], ""),
        (["Name is taken"], "Name is taken"),
        ("Name is taken", "Name is taken"),
        *((nothing, "") for nothing in NO_WORDS),
    ],
)
def test_the_vendors_own_words_are_told(body: object, words: str) -> None:
    assert answer(json.dumps(body).encode()).words() == words


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b" No \xff\r\n", "No \ufffd"),
        (b"Name is t\xe4ken", "Name is t\ufffdken"),
        (b"{Name is taken", "{Name is taken"),
        (rb'{"message": "Too long: Shop \ud83d"}', "Too long: Shop ?"),
        *(
            (page, "")
            for page in (b"", b" \r\n", b"<!DOCTYPE html><html>No</html>", b"<?xml version='1.0'?>", b"No<br>")
        ),
        (b"x" * (MAX_WORDS + 1), "x" * MAX_WORDS),
        (json.dumps({"message": "x" * 5000}).encode(), "x" * MAX_WORDS),
        *((opening * depth + b"1" + closing * depth, "") for opening, closing, depth in ((b'{"a":', b"}", 100),)),
    ],
    ids=lambda part: repr(part[:24]),
)
def test_text_is_told_as_it_is_unless_it_is_a_page(body: bytes, words: str) -> None:
    assert answer(body).words() == words
    assert error_of(400, body).message == "shop answered 400" + (f": {words}" if words else "")


@pytest.mark.parametrize(
    ("opening", "closing", "depth"),
    [(b"[", b"]", 100), (b"[", b"]", 30_000), (b'{"a":', b"}", 100), (b'{"a":', b"}", 10_000)],
)
def test_refused_when_its_json_is_nested_deeply(opening: bytes, closing: bytes, depth: int) -> None:
    assert type(error_of(400, opening * depth + b"1" + closing * depth)) is RefusedError


SECRET = 'k"e\\y /ü+&'


@pytest.mark.parametrize(
    "written",
    [
        SECRET,
        json.dumps(SECRET, ensure_ascii=False)[1:-1],
        r"k\"e\\y \/ü+&",
        r"k\"e\\y /\u00fc+&",
        "k%22e%5Cy%20%2F%C3%BC%2B%26",
        "k%22e%5Cy+%2F%C3%BC%2B%26",
        "k%22e%5cy%20%2f%c3%bc%2b%26",
        "k%22e%5Cy%20/%C3%BC%2B%26",
        "k&quot;e\\y /ü+&amp;",
        'k"e\\y /ü+&amp;',
    ],
)
def test_a_secret_is_not_told_in_whichever_way_it_is_written(written: str) -> None:
    one = answer(b"", secrets=("other", SECRET))
    assert one.shown(f"no {written}, nor other, nor {written}") == "no ***, nor ***, nor ***"


@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.parametrize("escape", [html.escape, lambda text: quote(text, ""), lambda text: json.dumps(text)[1:-1]])
def test_a_secret_is_masked_in_a_result_however_often_it_is_escaped(escape: Callable[[str], str], times: int) -> None:
    secret = "s3cret/'pass\\word\" é+&<end"
    written = secret
    for _ in range(times):
        written = escape(written)
    said = answer(json.dumps({"note": [f"it is {written}."], f"x{written}": {"id": 4711}}).encode(), secrets=(secret,))
    assert said.json() == {"note": ["it is ***."], "x***": {"id": 4711}}
    assert said.masked({"note": written}) == {"note": "***"}
    assert said.json(masks=False)["x" + written] == {"id": 4711}


@pytest.mark.parametrize(
    "written",
    [
        *("pass%2Fword-1", "pass%2fword-1", "pass%2fword%2D1", r"pass\/word-1", "pass&#47;word-1", "pass&#x2F;word-1"),
        *("pass&#x2f;word&#45;1", "pass&sol;word-1", "pass%252fword-1", r"pass\u002fword-1", "pass&amp;#047;word-1"),
        *("dXNlcjpwYXNzL3dvcmQtMQ", "Basic dXNlcjpwYXNzL3dvcmQtMQ=="),
    ],
)
def test_a_password_and_a_login_are_masked_in_a_result(written: str) -> None:
    secrets = ("pass/word-1", basic("user", "pass/word-1"))
    said = answer(json.dumps({"sites": [{"name": f"<{written}>", "n": 1}]}).encode(), secrets=secrets)
    assert "***" in str(said.json())
    assert written.removeprefix("Basic ").rstrip("=") not in str(said.json())


@pytest.mark.parametrize("secret", ["abc", "open", "1234567", "", "/"])
def test_a_short_secret_mangles_no_result(secret: str) -> None:
    body = {"id": secret, "name": f"x{secret}y {secret}", secret: [secret]}
    assert answer(json.dumps(body).encode(), secrets=(secret,)).json() == body


def test_a_secret_is_masked_from_its_first_letter_on_and_as_a_whole_if_that_is_too_short() -> None:
    secrets = ("$$pass-word", "$$$$$$ab", "\u043f\u0430\u0440\u043e\u043b\u044c-1")  # the last is in Cyrillic letters
    said = answer(json.dumps(list(secrets)).encode(), secrets=secrets)
    assert said.json() == ["$$***", "***", "***"]


def test_a_result_is_left_as_it_is_when_it_repeats_no_secret() -> None:
    body = {"id": 12345678, "name": 'Zoë \\ / " % & +', "inner": [None, True, 1.5, {"": []}]}
    said = answer(json.dumps(body).encode(), secrets=("12345678x", "other-secret"))
    assert said.json() == said.masked(body) == body


def test_what_lies_too_deep_in_a_result_is_masked() -> None:
    nested: object = "s3cret-s3cret"
    for _ in range(1000):
        nested = [nested]
    assert "s3cret" not in str(answer(b"", secrets=("s3cret-s3cret",)).masked(nested))


def test_markup_is_not_told_at_all() -> None:
    assert answer(b"").shown("No <b>") == ""


KEY = 's3cret"key\\1'


@pytest.mark.parametrize(
    "body",
    [
        f"Bad header 'Bearer {KEY}'".encode(),
        f"Bad header 'Bearer {json.dumps(KEY)[1:-1]}', not JSON".encode(),
        json.dumps({"message": f"Bad header 'Bearer {KEY}'"}).encode(),
        json.dumps({"errors": [{"detail": f"Bearer {KEY}"}]}).encode(),
        f"{'x' * (MAX_WORDS - 5)}{KEY}".encode(),
    ],
    ids=["text", "escaped", "message", "deep", "at the cut"],
)
def test_a_secret_is_masked_in_an_error_when_the_vendor_repeats_it(body: bytes) -> None:
    with pytest.raises(RefusedError) as caught:
        expect(answer(body, secrets=(KEY,)), 201)
    assert "***" in caught.value.message
    assert "s3c" not in caught.value.message + repr(caught.value)


# ---------------------------------------------------------------- when to come back


def retry_after(value: str) -> float | None:
    return answer(b"", headers={"Retry-After": value}).retry_after


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        *(("7", 7.0), (" 7 ", 7.0), ("0", 0.0), ("120", 120.0), ("123456789", 123_456_789.0)),
        ("1234567890", 123_456_789.0),
        *(
            (nonsense, None)
            for nonsense in ("", "-1", "abc", "1.5", "1e9", "nan", "inf", "0x10", "\xb2\xb3", "٣٤", "Mon,")
        ),
        ("Mon, 32 Jan 2026 99:00:00 GMT", None),
        ("Mon, 01 Jan 2026 00:00:00 +9999", None),
        ("9" * 5000 + " Jan 2026 00:00:00 GMT", None),
        ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", None),
        ("Mon, 01 Jan 2026 99999999999999999999:00:00 GMT", None),
        ("Mon, 01 Jan 2026 00:00:00 +99999999999999999999", None),
    ],
    ids=lambda part: repr(part)[:60],
)
def test_retry_after_is_in_seconds_or_nonsense(value: str, seconds: float | None) -> None:
    assert retry_after(value) == seconds
    assert answer(b"").retry_after is None


def test_retry_after_may_be_a_date(monkeypatch: pytest.MonkeyPatch) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=600), usegmt=True)
    assert retry_after(later) == pytest.approx(600, abs=30)
    for huge in ("9" * 500, "Fri, 31 Dec 9999 23:59:59 GMT"):
        assert 1e8 < (retry_after(huge) or 0) < math.inf
    for written in ("Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"):
        for now, seconds in ((784_111_770.0, 7.0), (784_111_778.5, 0.0)):
            monkeypatch.setattr("crm_bridge.outbound.response.time", SimpleNamespace(time=lambda now=now: now))
            assert retry_after(written) == seconds


# ---------------------------------------------------------------- charsets


@pytest.mark.parametrize(
    ("kind", "encoding"),
    [
        ("application/json; charset=iso-8859-1", "iso-8859-1"),
        ("application/json;charset=ISO-8859-2", "iso-8859-2"),
        ('application/json; charset="windows-1250"', "windows-1250"),
        ("application/json; charset=utf-16", "utf-16"),
        ("application/json; charset=iso-8859-1", "utf-8"),
        ("application/json; charset=x-nothing", "utf-8"),
        ("application/json", "utf-8-sig"),
        ("", "utf-8"),
    ],
)
def test_a_response_is_read_in_the_charset_that_it_names(kind: str, encoding: str) -> None:
    said = answer(
        '{"name": "Müller", "message": "Nazwa zajęta"}'.encode(encoding, "replace"), headers={"Content-Type": kind}
    )
    assert said.json()["name"] == "Müller"
    assert said.words().startswith("Nazwa zaj")


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "application/json; charset=x"])
def test_contract_broken_when_a_response_is_in_no_charset_that_it_names(kind: str) -> None:
    said = answer('{"message": "Müller"}'.encode("iso-8859-1"), headers={"Content-Type": kind})
    with pytest.raises(ContractBrokenError):
        said.json()
    assert said.words() == "M\ufffdller"  # only shown to people

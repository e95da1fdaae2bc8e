"""Work on foreign bytes is bounded. What is counted is work, not time."""

import json
from typing import Any

import pytest

from crm_bridge.errors import ContractBrokenError
from crm_bridge.fields import LONGEST_COMPARED, may_have_become
from crm_bridge.outbound.response import MOST_CONTAINERS, MOST_ELEMENTS, VendorResponse
from crm_bridge.tracing import Trace
from crm_bridge.vendors import izzitup
from tests.steps import steps


class Decoder(json.JSONDecoder):
    """Counts how often it is asked."""

    tries = 0

    def raw_decode(self, s: str, idx: int = 0) -> Any:
        Decoder.tries += 1
        return super().raw_decode(s, idx)


@pytest.fixture
def decoder(monkeypatch: pytest.MonkeyPatch) -> type[Decoder]:
    Decoder.tries = 0
    monkeypatch.setattr("crm_bridge.vendors.izzitup.json.JSONDecoder", Decoder)
    return Decoder


REPLY = '{"result": "Success", "message": "done", "data": {"id": 1}}'


@pytest.mark.parametrize(
    ("text", "tries"),
    [
        ('{"a":' * 20_000, izzitup.MOST_TRIES),
        ('{"a' * 40_000, izzitup.MOST_TRIES),
        ('{"a": 1} ' * 20_000, izzitup.MOST_TRIES),
        ("{" * 130_000, 0),
        ("{ " * 60_000 + "\t" * 60_000, 0),
        ("<style>a { color: red } b{margin:0}</style>\n" * 7_000, 0),
        ("<html>" + '<script>var a = {"b": 1};</script>' * 8_000, izzitup.MOST_TRIES),
    ],
    ids=["nested", "cut off", "one after another", "braces", "braces and blanks", "styles", "scripts"],
)
def test_a_reply_of_izzitup_is_looked_for_in_few_places(decoder: type[Decoder], text: str, tries: int) -> None:
    assert izzitup._json(text) is None
    assert decoder.tries == tries


@pytest.mark.parametrize(
    "before",
    [
        "<b>Notice</b>: Undefined index in <i>/var/www/api.php</i>\n",
        'Warning: {"action": "setstatus", "pwd": "a", "of": {"more": {"and": "more"}}} \n',
        "<style>a { color: red }</style>" * 1000,
        '{"cut off": ',
    ],
)
def test_a_reply_of_izzitup_is_found_behind_what_stands_before_it(before: str) -> None:
    assert izzitup._json(before + REPLY + "<!-- end -->") == json.loads(REPLY)


def body(content: bytes) -> VendorResponse:
    return VendorResponse("illu", 200, {}, content, ())


@pytest.mark.parametrize(
    "content",
    [
        b"[" + b",".join([b"[]"] * MOST_CONTAINERS) + b"]",
        b"[" + b",".join([b"{}"] * MOST_CONTAINERS) + b"]",
        b"[" + b",".join([b"0"] * (MOST_ELEMENTS + 2)) + b"]",
    ],
    ids=["arrays", "objects", "numbers"],
)
def test_a_list_of_too_many_elements_is_refused_before_it_is_parsed(
    monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr("crm_bridge.outbound.transport.json.loads", lambda _: pytest.fail("it was parsed"))
    with pytest.raises(ContractBrokenError, match="too many elements"):
        body(content).json()


def test_a_list_of_as_many_elements_as_there_may_be_is_parsed() -> None:
    assert len(body(b"[" + b",".join([b"[]"] * (MOST_CONTAINERS - 1)) + b"]").json()) == MOST_CONTAINERS - 1


@pytest.mark.parametrize("sent", ["<" + "a" * (LONGEST_COMPARED - 2) + ">", "&a;" * (LONGEST_COMPARED // 3)])
def test_a_text_of_markup_is_compared_in_linear_time(sent: str) -> None:
    stored = "a" * LONGEST_COMPARED
    assert steps(lambda: may_have_become(sent, stored)) < 20 * (len(sent) + len(stored))


def test_a_text_is_not_compared_when_it_is_longer_than_what_is_compared() -> None:
    assert may_have_become("x" * (LONGEST_COMPARED + 1), "y")
    assert not may_have_become("x" * LONGEST_COMPARED, "y")


def test_the_places_of_unread_members_are_cut() -> None:
    payload: Any = {"a" * 50_000: {str(number): [{"b" * 300: 0}] for number in range(3000)}}
    trace = Trace(payload)
    trace.run("c")
    assert {len(place) for place in trace.unread()} == {200}
    trace = Trace({"x" * 190: [{"y" * 50: 0, "z": 1}]})
    trace.run(f"{'x' * 190}[].z")
    assert trace.unread() == ["x" * 190 + "[]." + "y" * 7]

"""Words of vendors: whatever they hold, nothing of it steers a terminal, hides, or reorders what a person reads."""

import json
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crm_bridge.engine import POLICY
from crm_bridge.engine.decide import candidates_of
from crm_bridge.errors import RefusedError, VendorError, WrongFieldError
from crm_bridge.flow import Match
from crm_bridge.outbound.response import MAX_WORDS, VendorResponse
from crm_bridge.vendors.egito import usable_id
from crm_bridge.vendors.illu import IlluJob
from crm_bridge.words import LONGEST, plain, plain_json

HOSTILE = {
    "an escape sequence": ("No\x1b[2J\x1b[1;1Hsuch site", "No [2J [1;1Hsuch site"),
    "the clipboard (OSC 52)": ("No\x1b]52;c;cm0gLXJm\x07", "No ]52;c;cm0gLXJm"),
    "the same in C1": ("No\x9d52;c;cm0gLXJm\x9c", "No 52;c;cm0gLXJm"),
    "bidirectional controls": ("\u202egpj.\u2066exe\u2069\u200f", "gpj.exe"),
    "zero width": ("ad\u200bmin\u2060\ufeff\u00ad", "admin"),
    "tags": ("ok\U000e0041\U000e007f", "ok"),
    "another line": ("No\r\nDone: its state is succeeded.\x0b\x0c\u2028\u2029\x85", "No Done: its state is succeeded."),
    "DEL, NUL, backspaces": ("pass\x08\x08\x7f\0word", "pass word"),
    "private use": ("\ue000\U0010fffd", ""),
    "half a surrogate pair": ("Shop \ud83d", "Shop ?"),
    "letters of any script": ("Zażółć gęślą jaźń 日本 🏪 á \ufffd", "Zażółć gęślą jaźń 日本 🏪 á \ufffd"),
}


@pytest.mark.parametrize(("words", "kept"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_vendors_words_are_one_plain_line_wherever_they_are_kept(words: str, kept: str) -> None:
    assert plain(words) == kept
    assert VendorError(words, vendor="acme").message == str(VendorError(words, vendor="acme")) == kept
    (field,) = WrongFieldError(words, vendor="acme", field="service").fields
    assert field.message == kept
    (candidate,) = candidates_of([Match(IlluJob(job_id="1"), None, False, "1", words)], POLICY)
    assert candidate.name == kept
    body = json.dumps({"message": words}).encode()
    assert VendorResponse("acme", 422, {}, body, ()).words() == kept


@settings(deadline=None)
@given(st.text())
def test_nothing_that_cannot_be_seen_is_left_of_any_text(text: str) -> None:
    left = plain(text, len(text))
    assert not [one for one in left if unicodedata.category(one) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")]
    assert plain(left, len(text)) == left


def test_a_message_is_bounded() -> None:
    assert len(RefusedError("x" * 10_000_000, vendor="acme").message) == LONGEST
    assert len(VendorResponse("acme", 422, {}, b"x" * 100_000, ()).words()) == MAX_WORDS


def test_a_secret_does_not_appear_when_what_hid_it_is_dropped() -> None:
    for written in ("s3\u200bcret-key", "s3cret\u202e-key", "s3cret-\x1bkey", "s3cret-key"):
        shown = VendorResponse("acme", 401, {}, f"Bad key {written}.".encode(), ("s3cret-key",)).words()
        assert "s3cret-key" not in shown


def test_what_a_vendor_returned_is_kept_without_them_but_with_its_line_breaks() -> None:
    returned = {
        "site_id": 1,
        "na\u200bme": "Shop\x1b[31m \u202e12",
        "tags": ["a\u2028b", {"x": "two\nlines\t."}],
        "n": None,
    }
    kept = {"site_id": 1, "name": "Shop[31m 12", "tags": ["ab", {"x": "two\nlines\t."}], "n": None}
    assert json.loads(plain_json(json.dumps(returned))) == kept
    assert json.loads(plain_json(json.dumps(returned, ensure_ascii=False))) == kept
    ordinary = '{"name":"Shop 12, \\"Kitale\\"\\n"}'
    assert plain_json(ordinary) is ordinary


@pytest.mark.parametrize("record_id", ["801\u200b", "\x1b[2J801", "80\u202e1", "801\n", "801\x7f"])
def test_an_id_with_characters_that_cannot_be_seen_is_none(record_id: str) -> None:
    assert usable_id({"id": record_id}) is None
    with pytest.raises(ValueError, match="is not an id"):
        IlluJob.model_validate({"job_id": record_id})
    assert usable_id({"id": "801"}) == IlluJob.model_validate({"job_id": 801}).job_id == "801"


def test_a_document_stays_as_compact_as_it_was() -> None:
    """A change of a key link compares how a stored result begins."""
    assert plain_json('{"id":77,"external_id":"\u00dc\u200b-1"}') == '{"id":77,"external_id":"\u00dc-1"}'

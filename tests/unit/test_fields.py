"""Types of fields: texts."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_bridge.fields import MOST_MARKS, is_same_text, may_have_become, normalized
from local.vendors.alterations import ALTERATIONS

REPORTED = [
    # https://github.com/mozilla/fxa-profile-server/issues/186
    ("rfkelly \U0001f6b2 sparkle", "rfkelly "),
    # https://github.com/aaronpk/webmention.io/issues/221
    ("fluffy \U0001f49c", "fluffy ????"),
    # https://github.com/aaronpk/webmention.io/issues/203
    ("@ olly \U0001f440 \u26a1\ufe0f some emoji", "@ olly ???? \u26a1 some emoji"),
    # https://github.com/phpbb/customisation-db/pull/440
    ("\U0001f195 cool extension", "&#127381; cool extension"),
    ("Łukasz Zieliński", "Lukasz Zielinski"),
    ("Łukasz", "?ukasz"),
    ("Kraków", "Krak\u00c3\u00b3w"),
    ("Tom & Söhne", "Tom &amp; S&ouml;hne"),
    ("Tom & Söhne", "Tom &am"),
    ("<b>Ada</b>", "Ada"),
    ("a\u200bb", "ab"),
    ("Straße", "STRASSE"),
    ("Straße", "Stra?e"),
    ("R&D Shop", "r&d shop"),
    ("R&amp;D", "R&D"),
    ("a < b > c", "a  c"),
    ("Shop", "<p>Shop</p>"),
    ("O\u2019Hara", "O'Hara"),
    ("X  1", "x 1"),
    ("Ada", ""),
]
TEXTS = ["Duka \U0001f3ea Kitale", "d\u2019Arc  & <b>Söhne</b>\u200b", "Łódź, ul. Żeromskiego 7/9", "Ada", "a" * 300]


@pytest.mark.parametrize(("sent", "stored"), REPORTED, ids=ascii)
def test_a_text_may_have_become_what_vendors_were_reported_to_make_of_it(sent: str, stored: str) -> None:
    assert may_have_become(sent, stored)


@pytest.mark.parametrize("name", ALTERATIONS)
@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_a_text_may_have_become_whatever_the_simulators_make_of_it(text: str, name: str) -> None:
    assert may_have_become(text, ALTERATIONS[name](text))
    assert may_have_become(text, text)


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        *(("T-1", "T-2"), ("T-1", "T-11"), ("Ada", "Adam"), ("Ada", "Eva"), ("", "a"), ("ab", "ba"), ("Joanna", "Ann")),
        ("Messe 2026 \u2013 Köln", "Messe 2025 \u2013 Köln"),
        ("T-5 \U0001f3ea", "T-6 \U0001f3ea"),
        ("R&D Shop", "R&B Shop"),
    ],
)
def test_a_text_has_not_become_another(sent: str, stored: str) -> None:
    assert not may_have_become(sent, stored)


@pytest.mark.parametrize(
    ("stored", "same"),
    [
        ("Zoë", True),
        ("Zoe\u0308", True),
        (" Zoë\n", True),
        ("zoë", False),
        ("Zo&euml;", False),
        (None, False),
        (7, False),
    ],
)
def test_a_text_is_the_same_only_if_events_cannot_differ_by_it(stored: object, same: bool) -> None:
    assert is_same_text(stored, "Zoë") is same


@given(st.text())
def test_a_text_is_normalized_as_by_unicode(text: str) -> None:
    assert normalized(text) == unicodedata.normalize("NFC", text)
    assert normalized(text, "NFKC") == unicodedata.normalize("NFKC", text)


@pytest.mark.parametrize("marks", ["\u0315\u0316", "\u0f73\u0301", "\uff9e\u0301"], ids=ascii)
def test_more_marks_on_a_letter_than_any_language_has_are_left_as_they_are(marks: str) -> None:
    most = "e" + marks * (MOST_MARKS // 2)
    assert normalized(most, "NFKC") == unicodedata.normalize("NFKC", most) != most
    for text in (most + marks[0], "a" + marks * 100_000):  # to put these in order takes minutes
        assert normalized(text, "NFKC") == text
    assert normalized(most + most, "NFKC") == unicodedata.normalize("NFKC", most + most)

"""Any text, any alteration of it by the vendor, and any loss: one record, or a person decides; never two."""

import unicodedata
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local.vendors.alterations import ALTERATIONS, Alteration, cut, cut_bytes, stored
from tests.faults.checks import broken_rules
from tests.faults.events import TEXT, TEXT_OF_ID, Event, create_job, create_key_link, create_site
from tests.faults.faults import Fault
from tests.faults.harness import World
from tests.faults.matrix import BY_FAULT, USUAL

LOSSES = ("closed, done", "closed, not done", "500, done", "500, not done", "429, done", "503, done", "503")
PIECES = [
    "a",
    "B",
    "  ",
    " ",
    "Ł",
    "ö",
    "&",
    "&amp;",
    "<b>",
    "<i x=1>",
    "\u2019",
    "'",
    "\u200b",
    "\U0001f3ea",
    "\u5e97",
    "?",
    "x" * 60,
]
NOT_IN_IDS = "\u200b/"

TEXTS = st.lists(st.sampled_from(PIECES), max_size=8).map("".join) | st.text(
    st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), max_size=60
)
ALTERED = st.lists(
    st.sampled_from(sorted(ALTERATIONS)).map(ALTERATIONS.__getitem__)
    | st.integers(0, 80).map(cut)
    | st.integers(0, 80).map(cut_bytes),
    max_size=2,
)


def _clean(text: str) -> str:
    return unicodedata.normalize("NFC", text).rstrip()


def _of_id(text: str) -> str:
    return _clean("".join(one for one in text if one not in NOT_IN_IDS + "[]{}"))


MAKERS: tuple[Callable[[int, str], Event], ...] = (
    lambda number, text: create_site(number, _clean(text)),
    lambda number, text: create_job(number, _clean(text), _of_id(text)),
    lambda number, text: create_key_link(number, _of_id(text)),
)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(aws_without_http=True) as world:
        yield world


def played(
    world: World, make: Callable[[int, str], Event], text: str, alterations: list[Alteration], loss: Fault
) -> None:
    world.begin()
    number = world.take_in(USUAL[""])
    event = make(number, text)
    world.prepare(event)
    for simulator in (world.stack.illu, world.stack.revio):
        simulator.alterations = alterations
    plan = world.inject(loss, event.writes)
    world.send(event)
    world.settle()
    assert plan.hit
    assert broken_rules(world) == []


@settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(make=st.sampled_from(MAKERS), text=TEXTS, alterations=ALTERED, loss=st.sampled_from(LOSSES))
def test_there_is_one_record_or_a_person_decides_whatever_the_vendor_stores(
    world: World, make: Callable[[int, str], Event], text: str, alterations: list[Alteration], loss: str
) -> None:
    played(world, make, text, alterations, BY_FAULT[loss])


@pytest.mark.parametrize("name", ALTERATIONS)
def test_each_alteration_alters_what_the_events_send_or_says_why_not(name: str) -> None:
    altered = [stored(text, [ALTERATIONS[name]]) for text in (f"Shop{TEXT}", f"001X1.{TEXT_OF_ID}")]
    untouched = [text for text in altered if text == text.sent]
    assert bool(len(untouched) < 2) is (name != "stripped")  # the bridge strips what it sends

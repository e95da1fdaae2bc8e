"""Senders are played against the bridge's own responses, and docs/senders.md says what is lost.

    REWRITE=1 pytest tests/unit/sources/test_senders.py

writes the tables of the page again.
"""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from crm_bridge.errors import ProblemError
from crm_bridge.inbound.api import Response
from crm_bridge.sources import PRESETS, SourceSettings, answer, receive, try_again
from local.senders import DAY, HOUR, MINUTE, SENDERS, SILENT, Bridge, Sender, notes, outage, play, survives, table
from local.source_requests import sample

PAGE = Path(__file__).parents[3] / "docs/senders.md"
SECRET = "whsec_" + "c2VjcmV0IG9mIGEgc2VuZGVy" + "MDEy"
EVENTS = [{"flow": "create_site", "version": "1", "expression": "{customer_id: id}"}]
VALUES = {"user": "bridge", "organization_id": "00DX00000000001", "url": "https://bridge.example/in/acme/crm"}
START = 1_795_000_000.0
EVERY_MINUTE = [START + MINUTE * number for number in range(60)]
STORED = {"stored": 1, "repeated": 0, "quarantined": 0, "ignored": 0}
QUARANTINED = {"stored": 0, "repeated": 0, "quarantined": 1, "ignored": 0}
BY_NAME = {sender.preset: sender for sender in SENDERS}
RELIABLE = [
    *("hubspot-app", "hubspot-workflow", "salesforce-outbound", "freshdesk", "power-automate", "shopify"),
    *("stripe-like", "standard-webhooks", "svix"),
]
"""Those whose documented retries outlast ten minutes without the bridge."""


def settings(preset: str) -> SourceSettings:
    used = next(iter(PRESETS[preset].proofs.values()))
    needed = {name: value for name, value in VALUES.items() if name in used.needs}
    return SourceSettings.model_validate({"preset": preset, "secrets": [SECRET], "events": EVENTS, **needed})


def real(preset: str, is_down: Callable[[float], bool] = lambda time: False) -> Bridge:  # noqa: ARG005
    """Return a bridge that proves each request at its own time, and stores its events unless it is down."""
    source = settings(preset)

    def bridge(time: float, number: int) -> Response | None:  # noqa: ARG001
        try:
            receive(source, sample(source, time), time)
        except ProblemError as problem:
            return Response(problem.status, {})
        return try_again(source) if is_down(time) else answer(source, STORED)

    return bridge


def test_every_preset_has_its_sender() -> None:
    assert {*BY_NAME} == {*PRESETS}
    assert len(BY_NAME) == len(SENDERS)


@pytest.mark.parametrize("sender", SENDERS, ids=lambda sender: sender.preset)
def test_nothing_is_lost_while_a_vendor_is_down_for_hours(sender: Sender) -> None:
    """The bridge stores and answers, whatever the vendor does. So no sender notices."""
    played = play(sender, real(sender.preset), EVERY_MINUTE)
    assert (played.lost, played.requests) == (set(), len(EVERY_MINUTE))


@pytest.mark.parametrize("preset", RELIABLE)
def test_nothing_is_lost_while_the_bridge_is_down_for_ten_minutes(preset: str) -> None:
    def is_down(time: float) -> bool:
        return 10 * MINUTE <= time - START < 20 * MINUTE

    played = play(BY_NAME[preset], real(preset, is_down), EVERY_MINUTE)
    assert played.lost == set()
    assert played.requests > len(EVERY_MINUTE)


def test_page_says_of_every_other_sender_that_events_may_be_lost() -> None:
    for sender in SENDERS:
        assert (survives(sender, try_again(settings(sender.preset))) == "nothing is lost") is (
            sender.preset in RELIABLE
        )


@pytest.mark.parametrize("sender", SENDERS, ids=lambda sender: sender.preset)
def test_invalid_events_cost_no_valid_one_when_they_go_to_quarantine(sender: Sender) -> None:
    good, kept = answer(settings(sender.preset), STORED), answer(settings(sender.preset), QUARANTINED)
    played = play(sender, lambda time, number: kept if number < 20 else good, EVERY_MINUTE)  # noqa: ARG005
    assert (played.lost, played.bans) == (set(), 0)


@pytest.mark.parametrize("preset", ["pipedrive-v1", "pipedrive-v2"])
def test_pipedrive_drops_valid_events_when_invalid_ones_are_refused(preset: str) -> None:
    good, refused = Response(200, {}), Response(422, {})
    played = play(BY_NAME[preset], lambda time, number: refused if number < 10 else good, EVERY_MINUTE)  # noqa: ARG005
    assert played.bans == 1
    assert {number for number in played.lost if number >= 10} == {*range(10, 39)}  # half an hour after the tenth


def test_pipedrive_counts_first_attempts_only_and_begins_again_after_a_ban() -> None:
    sender, refused = BY_NAME["pipedrive-v2"], Response(422, {})
    assert play(sender, outage(refused, Response(200, {}), START, START + 9 * MINUTE), EVERY_MINUTE).bans == 0
    assert play(sender, lambda time, number: refused, [START + 4 * MINUTE * n for n in range(60)]).bans == 3  # noqa: ARG005


def repeated(sender: Sender, response: Response | None) -> int:
    return play(sender, lambda time, number: response, [START]).requests - 1  # noqa: ARG005


@pytest.mark.parametrize(
    ("preset", "response", "times"),
    [
        ("hubspot-app", Response(401, {}), 10),
        ("hubspot-app", None, 10),
        ("hubspot-workflow", Response(422, {}), 0),
        ("zendesk", Response(409, {}), 3),
        ("zendesk", Response(503, {}), 0),
        ("zendesk", Response(503, {}, {"Retry-After": "60"}), 0),
        ("zendesk", Response(503, {}, {"Retry-After": "30"}), 1),
        ("zendesk", Response(502, {}), 0),
        ("zendesk", None, 5),
        ("dataverse", Response(503, {}), 1),
        ("dataverse", Response(503, {}, {"Retry-After": "30"}), 1),
        ("dataverse", Response(504, {}), 1),
        ("dataverse", Response(500, {}), 0),
        ("dataverse", Response(429, {}), 0),
        ("dataverse", None, 0),
        ("pipedrive-v2", Response(302, {}), 3),
        ("shopify", Response(404, {}), 8),
        ("github", Response(500, {}), 0),
        ("freshdesk", Response(500, {}), 3),
        ("salesforce-flow", Response(300, {}), 0),
        ("zoho-workflow", Response(503, {}, {"Retry-After": "30"}), 0),
    ],
)
def test_sender_repeats_as_often_as_its_vendor_says(preset: str, response: Response | None, times: int) -> None:
    assert repeated(BY_NAME[preset], response) == times


@pytest.mark.parametrize(
    ("preset", "longest"),
    [("hubspot-app", DAY), ("hubspot-workflow", 3 * DAY), ("salesforce-outbound", DAY), ("shopify", 4 * HOUR)],
)
def test_sender_does_not_go_on_for_longer_than_its_vendor_says(preset: str, longest: float) -> None:
    delays = BY_NAME[preset].after("503").delays
    assert longest * 0.6 < sum(delays) <= longest


def test_a_response_after_which_a_sender_would_stop_for_good_is_never_given() -> None:
    """410 disables an address of Standard Webhooks; 409 is repeated by Zendesk; a 202 is polled by Power Automate."""
    for preset, found in PRESETS.items():
        for kind in found.answers:
            statuses = {answer(settings(preset).model_copy(update={"answer": kind}), STORED).status}
            statuses.add(try_again(settings(preset)).status)
            assert statuses <= {200, 202, 503}
            assert preset != "power-automate" or 202 not in statuses


# ---------------------------------------------------------------- the page


def parts() -> Mapping[str, str]:
    outages = {"10 minutes of 503": try_again(settings("in-house")), "10 minutes of silence": None}
    return {"table": table(outages), "notes": notes()}


def test_page_has_the_tables() -> None:
    text = PAGE.read_text()
    for name, part in parts().items():
        found = re.search(rf"(<!-- {name} -->\n\n)(.*?)(\n\n<!-- end -->)", text, re.DOTALL)
        assert found, name
        if "REWRITE" in os.environ:
            text = text.replace(found[0], found[1] + part + found[3])
            PAGE.write_text(text)
            continue
        assert found[2] == part


def test_page_calls_silence_what_it_is() -> None:
    assert SILENT in PAGE.read_text()

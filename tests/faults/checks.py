"""Rules that must hold once everything in a world is settled: each event has its one effect and its links."""

import json
import sys
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote

from crm_bridge.errors import Event as Happening
from crm_bridge.storage.operation import Operation, State
from local.vendors.alterations import as_sent

if TYPE_CHECKING:
    from tests.faults.harness import Sent, World


def too_many(world: "World") -> list[str]:
    """Return the events that have more effects than they may have at any time, a line each."""
    return [
        f"{sent.event.kind} has {len(held)} effects, not {len(sent.event.wanted)}"
        for sent in _last_sent(world)
        if sent.event.wanted and len(held := sent.event.held(world.stack)) > len(sent.event.wanted)
    ]


def unaccepted(world: "World") -> "list[Sent]":
    """Return how each event that was never accepted was sent last."""
    accepted = {id(sent.event) for sent in world.sent if sent.is_accepted}
    return [sent for sent in _last_sent(world) if id(sent.event) not in accepted]


def broken_rules(world: "World") -> list[str]:
    """Return what is wrong, a line each: an event without its effect, with two, unfinished, or without its links."""
    now = int(time.time() + world.stack._ahead)
    left = [one for one in world.operations() if not (is_finished(one) or _is_needless(one))]
    wrong = [_unfinished(one, now) for one in left]
    wrong += [f"{sent.event.kind} was not accepted ({sent.statuses})" for sent in unaccepted(world)]
    for sent in _last_sent(world):
        event, held = sent.event, sent.event.held(world.stack)
        if len(held) > len(event.wanted):
            wrong.append(f"{event.kind} has {len(held)} effects, not {len(event.wanted)}")
        elif held != event.wanted:
            wrong.append(f"{event.kind} left {held}")
        wrong += [f"{one} is not linked to {other}" for one, other in _loose_ends(world, sent)]
        wrong += [f"{one} is still linked" for one in event.untied if _linked(world, sent.tenant, one)]
    return wrong


def _last_sent(world: "World") -> "list[Sent]":
    """Each event once."""
    return list({id(sent.event): sent for sent in world.sent}.values())


def _linked(world: "World", tenant: str, identity: str) -> set[str]:
    path = "/".join(quote(part, safe="") for part in identity.split("/"))
    answer = world.answer(tenant, "GET", f"/links/{path}")
    assert answer.status_code in (200, 404), answer.status_code
    return {"/".join((link["system"], link["entity"], link["id"])) for link in answer.json().get("links", [])}


def _loose_ends(world: "World", sent: "Sent") -> list[tuple[str, str]]:
    return [
        (one, other)
        for group in sent.event.ties(world.stack)
        for one in group
        for other in sorted({*group} - {one} - _linked(world, sent.tenant, one))
    ]


def made_at_the_vendor(world: "World", operation: Operation) -> str | None:
    """The id of the record that this operation made, as a person would find it; None if there is none."""
    payload = json.loads(operation.payload or "{}")
    egito = world.stack.egito
    match operation.flow:
        case "create_site":
            return _one(world.stack.illu.sites, "name", payload["name"], "site_id")
        case "create_key_link":
            link = payload["link"]
            of_it = [one for one in world.stack.revio.key_links if one["internal_id"] == link["internal_id"]]
            return _one(of_it, "external_id", link["external_id"], "integration_key_link_id")
        case "create_job":
            return _one(world.stack.illu.jobs, "name", payload["name"], "job_id")
        case "create_person_record":
            record = payload["fields"]["lastName"]
            return _one(egito.records[payload["entity"]], "lastName", record, "id")
        case "create_record":
            named = "name" if payload["entity"] == "Order" else "lastName"
            return _one(egito.records[payload["entity"]], named, payload["fields"][named], "id")
        case "create_lead_source":
            return _one(egito.dictionaries[payload["dictionary"]], "name", payload["name"], "id")
    return None


def is_finished(operation: Operation) -> bool:
    """Also what was withdrawn after it had succeeded, and a change that a later one has made needless."""
    last = operation.last_attempt
    return operation.state is State.SUCCEEDED or (
        last is not None and (last.event is Happening.WITHDRAWN or "by a later request" in last.reason)
    )


def _is_needless(operation: Operation) -> bool:
    """Return whether it is one of two requests to delete a record, and the record was gone already.

    That happens if Egito deleted it for the other request and said "try later": then nothing tells that it was there.
    What is left of the record is checked as for all events.
    """
    last = operation.last_attempt
    is_refused = operation.state is State.REJECTED and last is not None and last.event is Happening.REFUSED
    return operation.flow == "delete_record" and is_refused and last is not None and "not found" in last.reason


def _unfinished(operation: Operation, now: int) -> str:
    """In one line, for whoever asks why it did not end; `now` in epoch seconds of the world."""
    times = {
        name: None if at is None else at - now
        for name in ("first_sent_at", "updated_at", "due_at", "lent_until")
        for at in [getattr(operation, name)]
    }
    attempts = [f"{one.at - now}: {one.event} {one.reason}" for one in operation.attempts]
    return f"{operation.flow} is {operation.state} (seconds from now: {times}; attempts: {attempts})"


def _one(records: Iterable[Mapping[str, object]], member: str, value: object, id_member: str) -> str | None:
    """By what was sent: a person sees through what the vendor made of it."""
    return next((str(record[id_member]) for record in records if as_sent(record.get(member)) == value), None)


def say(text: str) -> None:
    """Print the progress of a long run."""
    sys.stderr.write(text)
    sys.stderr.flush()

"""`crm-bridge tail`: a tenant's operations as they change."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import count, islice, takewhile
from typing import Annotated

import typer

from cli.bridge import Bridge
from cli.command import Name
from cli.operations import FlowOption, ReasonOption, StateOption, has_reason
from cli.output import STYLES, moment
from crm_bridge.errors import StorageError
from crm_bridge.storage.operation import LISTED, OperationSummary, State

INTERVAL = 2.0
"""Seconds between two looks."""
MOST = 500
"""Operations of each state that a look reads."""
LAG = 30
"""Seconds by which an entry of the listing index may come late, at most, to be noticed."""
PATIENCE = 30
"""Looks in a row that may fail; they take a minute or more."""


def tail(
    bridge: Bridge,
    name: Name,
    state: StateOption = None,
    flow: FlowOption = None,
    reason: ReasonOption = None,
    last: Annotated[int, typer.Option("--last", min=0, max=100, help="Begin with the last of them.")] = 10,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="End after this many lines.")] = None,
) -> None:
    """Print a tenant's operations as they change, a line for each change, until Ctrl-C.

    An operation that changes twice within two seconds is printed once. With --json each line is a JSON document.
    """

    def look(since: int) -> Iterator[OperationSummary]:
        for one in [state] if state else State:
            yield from (found for found in _recent(bridge, name, one, flow, since) if has_reason(found, reason))

    bridge.expect_tenant(name)
    if bridge.output.notices.is_terminal:
        bridge.output.notice(f"Waiting for changes of operations of {name}. Ctrl-C ends it.", style="dim")
    try:
        for one in islice(_changes(lambda since: _patient(bridge, look, since), last), limit):
            _print(bridge, one)
    except KeyboardInterrupt:  # this is how it ends
        return


def _changes(look: Callable[[int], Iterable[OperationSummary]], last: int) -> Iterator[OperationSummary]:
    """Yield the last operations, and then each one that changes, for ever."""
    seen: dict[str, OperationSummary] = {}
    newest = 0
    for number in count():
        if number:
            time.sleep(INTERVAL)
        found = {one.operation_id: one for one in look(newest - LAG)}
        changed = [one for one in found.values() if seen.get(one.operation_id) != one]
        changed.sort(key=lambda one: (one.updated_at, one.operation_id))
        yield from changed if number else changed[len(changed) - min(last, len(changed)) :]
        newest = max([newest, *(one.updated_at for one in found.values())])
        seen = found


def _patient(bridge: Bridge, look: Callable[[int], Iterable[OperationSummary]], since: int) -> list[OperationSummary]:
    """Return what a look finds; repeat it if it fails. Raises StorageError after the last attempt."""
    for failures in range(PATIENCE):
        try:
            return list(look(since))
        except StorageError as error:
            if failures == 0:
                bridge.output.notice(f"{error.detail.partition('.')[0]}. Trying again ...", style="yellow")
            time.sleep(INTERVAL)
    return list(look(since))


def _recent(bridge: Bridge, tenant: str, state: State, flow: str | None, since: int) -> Iterator[OperationSummary]:
    """Yield the operations in a state that were changed since then. Only settled ones are listed by that."""
    listed = islice(bridge.listed(tenant, [state], flow), MOST)
    if state in LISTED:
        return takewhile(lambda one: one.updated_at >= since, listed)
    return (one for one in listed if one.updated_at >= since)


def _print(bridge: Bridge, one: OperationSummary) -> None:
    if bridge.output.as_json:
        sys.stdout.write(json.dumps(one.to_response()) + "\n")
        sys.stdout.flush()
        return
    attempt = one.last_attempt
    why = f"  {attempt.event}{f': {attempt.reason}' if attempt.reason else ''}" if attempt else ""
    line = f"{moment(one.updated_at)}  {one.state:12}  {one.flow} {one.event_key}{why}"
    bridge.output.line(line.replace("\n", r"\n"), style=STYLES.get(one.state, ""))

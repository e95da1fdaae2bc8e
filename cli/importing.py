"""`crm-bridge import`: what there is already, carried as if the CRM had sent each row just now.

The bridge's own engine does it, under the same operation keys as live traffic. So a row that was carried before, by
whomever, is not carried again; a run can be stopped or killed and started anew; and what could not be finished is
finished by the bridge itself.
"""

import csv
import json
import re
import resource
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from cli.asking import confirm
from cli.bridge import Bridge
from cli.cells import escaped, opened, refuse_special
from cli.command import Name, NotAllWellError, WrongInputError, Yes, command
from cli.progress import Progress, progress_of
from cli.rows import rows
from create_job.flow import CreateJob
from create_job.models import NewJob
from create_site.flow import CreateSite
from create_site.models import NewSite
from crm_bridge import Flow
from crm_bridge.api import CHANGED
from crm_bridge.engine import DUE, REPLACEABLE
from crm_bridge.errors import Event, NotConfiguredError, RunningError, SignInRefusedError, StorageError
from crm_bridge.fields import compared
from crm_bridge.operations import Operation, State, fingerprint
from crm_bridge.settings import Tenant
from crm_bridge.transport import Deadline
from crm_bridge.vendors.illu import VENDOR as ILLU
from crm_bridge.vendors.revio import VENDOR as REVIO
from crm_bridge.vendors.revio import RevioSettings
from key_link.flow import CreateKeyLink
from key_link.models import KeyLink, NewKeyLink

AT_ONCE = 4
"""So many rows are on their way to a vendor at a time."""
PATIENCE = 25.0
"""Seconds for one row."""
GENTLE = 120
"""Rows a minute; illu documents no limit."""
CALLS_PER_ROW = 3
"""A key link is looked for before it is made, in both forms of a Salesforce id."""
STORAGE_PAUSES = (1.0, 4.0, 15.0)
"""Seconds before a row is tried again that the bridge's storage did not take."""
FINE = ("repeated", "not carried", "empty", "continued")
"""What a line may come to besides `succeeded` if all is well."""
LOOK_AGAIN = 5.0
"""Seconds between two looks at what the bridge goes on with."""

app = typer.Typer(help="Import what there is already: customers, tickets, key links.", no_args_is_help=True)


@dataclass(frozen=True)
class Kind[M: BaseModel]:
    """What a file holds, and how a row of it is carried."""

    name: str
    help: str
    row: type[M]
    flow: type[Flow[Any, Any, Any]]
    command: Callable[[M], BaseModel]
    id: str
    """Which member of an answer is the new id."""
    vendor: str
    rate: Callable[[Tenant], int]
    """Rows a minute."""
    as_json: tuple[str, ...] = ()


def _at_revio(settings: Tenant) -> int:
    revio = settings.of(RevioSettings)
    if revio is None:
        raise NotConfiguredError("The tenant's secret has no revio block. Add it first.")
    return revio.calls_per_minute // CALLS_PER_ROW


KINDS: tuple[Kind[Any], ...] = (
    Kind(
        "sites",
        "Customers that are to become sites at illu: customer_id, name, latitude, longitude, address.",
        NewSite,
        CreateSite,
        lambda site: site,
        "site_id",
        ILLU,
        lambda _: GENTLE,
    ),
    Kind(
        "jobs",
        "Tickets that are to become jobs at illu: ticket_id, name, customer_id or site_id, and what else a job has.",
        NewJob,
        CreateJob,
        lambda job: job,
        "job_id",
        ILLU,
        lambda _: GENTLE,
        as_json=("tag_ids", "workflow_instances"),
    ),
    Kind(
        "key-links",
        "Accounts that are to be key links at Rev.io: system, entity_type, internal_id, external_id.",
        KeyLink,
        CreateKeyLink,
        lambda link: NewKeyLink(link=link),
        "id",
        REVIO,
        _at_revio,
    ),
)

File = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A .csv file with a header, or a .jsonl file.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check the file and show what would be done.")]
Rate = Annotated[int | None, typer.Option(min=1, help="Rows a minute at most. Else what suits the vendor.")]
ResultFile = Annotated[
    Path | None, typer.Option(help="Where the result goes. Else beside the file, as FILE.result.csv.")
]
Wait = Annotated[
    int, typer.Option(min=0, help="Minutes to wait in the end for what the bridge goes on with by itself.")
]


def _add_command(kind: Kind[Any]) -> None:
    def run(
        bridge: Bridge,
        name: Name,
        file: File,
        dry_run: DryRun = False,
        rate: Rate = None,
        result: ResultFile = None,
        wait: Wait = 15,
        yes: Yes = False,
    ) -> None:
        Import(bridge, name, kind).run(file, dry_run=dry_run, rate=rate, result=result, wait=wait, yes=yes)

    run.__doc__ = kind.help
    command(app, kind.name)(run)


for _kind in KINDS:
    _add_command(_kind)


@dataclass
class Line:
    """What became of one line of the file."""

    line: int
    state: str
    event_key: str = ""
    operation_id: str = ""
    id: str = ""
    detail: str = ""
    warning: str = ""


@dataclass
class Plan:
    """What there is to do. `lines` has every line of the file but the header."""

    lines: list[Line] = field(default_factory=list)
    to_carry: list[tuple[Line, BaseModel]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


class Import[M: BaseModel]:
    def __init__(self, bridge: Bridge, tenant: str, kind: Kind[M]) -> None:
        self._bridge = bridge
        self._output = bridge.output
        self._tenant = tenant
        self._kind = kind

    def run(self, file: Path, *, dry_run: bool, rate: int | None, result: Path | None, wait: int, yes: bool) -> None:
        """Raises NotAllWellError if a row was not done."""
        result = result or file.with_name(f"{file.name}.result.csv")
        refuse_special(result)  # and not only when all is done
        rate = rate or self._kind.rate(self._bridge.tenant(self._tenant))  # first: a flow needs the bridge's tables
        plan = self._planned(self._checked(file))
        self._show(plan, rate)
        if dry_run:
            self._output.document({"dry_run": True, **self._summary(plan)})
            self._end(plan.lines)
            return
        if plan.to_carry and not yes:
            confirm(f"Carry {len(plan.to_carry):,} of them?")
        begun = time.monotonic()
        try:
            self._carry(plan, rate)
            self._await(plan.lines, wait)
        finally:  # also of what was stopped
            _write(result, plan.lines)
            self._tell(plan, result, time.monotonic() - begun)
        self._end(plan.lines)

    # ------------------------------------------------------------------ before

    def _checked(self, file: Path) -> list[tuple[Line, M | None]]:
        """Every line; of those that say the same event twice, only the first counts."""
        flow, kind = self._kind.flow(), self._kind
        first: dict[str, tuple[int, str, str]] = {}
        checked: list[tuple[Line, M | None]] = []
        for row in rows(file, kind.row, kind.as_json):
            if row.said is None:
                wrong = "; ".join(
                    f"{error.field}: {error.message}" if error.field else error.message for error in row.errors
                )
                checked.append((Line(row.line, "invalid" if row.errors else "empty", detail=wrong), None))
            else:
                event = kind.command(row.said)
                key, said = flow.key(event), fingerprint(compared(event))
                one = flow.operation_id(self._tenant, key)
                line, before, key_before = first.setdefault(one, (row.line, said, key))
                if line == row.line:
                    checked.append((Line(row.line, "", key, one), row.said))
                elif before == said:
                    checked.append((Line(row.line, "repeated", key, detail=f"says the same as line {line}"), None))
                else:
                    checked.append(
                        (Line(row.line, "invalid", key, detail=f"says something else of it than line {line}"), None)
                    )
                if key != key_before:
                    checked[-1][0].warning = f"has the id of line {line} in another form: {key} is {key_before}"
            checked += [
                (Line(row.line + more, "continued", detail=f"belongs to line {row.line}"), None)
                for more in range(1, row.lines)
            ]
        if all(line.state == "empty" for line, _ in checked):
            raise WrongInputError(f"{file} has no rows.")
        return checked

    def _planned(self, checked: Sequence[tuple[Line, M | None]]) -> Plan:
        known = self._bridge.runtime.operations.many([line.operation_id for line, _ in checked if line.operation_id])
        plan = Plan()
        for line, said in checked:
            plan.lines.append(line)
            if said is None:
                plan.counts[line.state] += 1
                continue
            there = known.get(line.operation_id)
            if there is None or _may_be_sent_again(there):
                plan.counts["new" if there is None else "rejected before"] += 1
                line.state = "not carried"
                plan.to_carry.append((line, self._kind.command(said)))
                continue
            self._note(line, there, new=False)
            plan.counts[f"known already: {there.state}"] += 1
            if there.fingerprint != fingerprint(compared(self._kind.command(said))):
                line.detail = f"{line.detail}; {CHANGED}".removeprefix("; ")
        return plan

    def _show(self, plan: Plan, rate: int) -> None:
        output = self._output
        for line in plan.lines:
            if line.state == "invalid":
                output.line(f"line {line.line}: {line.detail}", style="red")
            if line.warning:
                output.line(f"line {line.line}: {line.warning}", style="yellow")
        output.table(("rows", "what"), [(f"{number:,}", what) for what, number in plan.counts.most_common()])
        if plan.to_carry:
            minutes = len(plan.to_carry) / rate
            output.line(f"{len(plan.to_carry):,} to carry, at most {rate:,} a minute: about {_duration(60 * minutes)}.")
        else:
            output.line("There is nothing to carry.")

    # ------------------------------------------------------------------ meanwhile

    def _carry(self, plan: Plan, rate: int) -> None:
        """All that is to do. Whatever ends it, what is on its way is waited for."""
        pool = ThreadPoolExecutor(AT_ONCE)
        free = threading.Semaphore(AT_ONCE)
        failures: list[BaseException] = []

        def done(future: Future[None]) -> None:
            free.release()
            if error := future.exception():
                failures.append(error)

        with progress_of(self._output, self._kind.name, len(plan.to_carry)) as progress:
            self._resume_at = 0.0
            turn = time.monotonic()
            try:
                for line, event in plan.to_carry:
                    self._pause(progress)
                    free.acquire()
                    if failures:
                        break
                    turn = max(turn + 60 / rate, time.monotonic())
                    time.sleep(max(0.0, turn - time.monotonic()))
                    probing = self._bridge.runtime.transport.is_down(self._kind.vendor, self._tenant)
                    future = pool.submit(self._carry_one, line, event, progress)
                    future.add_done_callback(done)
                    if probing:  # one finds out; the others wait for what it finds
                        future.exception()
            except KeyboardInterrupt:
                progress.say("stopping, as soon as what is on its way is done")
                raise
            finally:
                pool.shutdown(wait=True)
        if failures:
            raise failures[0]

    def _pause(self, progress: Progress) -> None:
        """While the vendor is down, or has asked for time."""
        transport, clock = self._bridge.runtime.transport, self._bridge.runtime.clock
        while (left := max(transport.held_until(self._kind.vendor, self._tenant), self._resume_at) - clock()) > 0:
            progress.say(f"{self._kind.vendor} is down or asks for time, trying again in {left:.0f} s")
            time.sleep(min(1.0, left))
        progress.say("")

    def _carry_one(self, line: Line, event: BaseModel, progress: Progress) -> None:
        """Raises SignInRefusedError, NotConfiguredError, StorageError: then none would do better."""
        for pause in (*STORAGE_PAUSES, None):
            try:
                outcome = self._bridge.runtime.engine.run(
                    self._kind.flow, event, tenant=self._tenant, deadline=Deadline(PATIENCE)
                )
            except RunningError:
                line.state, line.detail = State.SENDING, "somebody else is carrying it"
                break
            except StorageError:
                if pause is None:
                    raise
                time.sleep(pause)
                continue
            self._note(line, outcome.operation, new=outcome.carried)
            if isinstance(outcome.error, SignInRefusedError):
                raise outcome.error
            if outcome.error and outcome.error.retry_after:
                self._resume_at = self._bridge.runtime.clock() + outcome.error.retry_after
            break
        progress.advance(line.state)

    def _note(self, line: Line, operation: Operation, *, new: bool) -> None:
        line.state = operation.state
        answer = json.loads(operation.result) if operation.result else {}
        line.id = str(answer.get(self._kind.id, ""))
        if operation.state is State.SUCCEEDED:
            line.detail = "" if new else "known already"
        elif operation.last_attempt:
            line.detail = operation.last_attempt.reason

    def _await(self, lines: Sequence[Line], minutes: int) -> None:
        """Until the bridge has finished what it goes on with by itself, at most so long."""
        end = time.monotonic() + 60 * minutes
        pending = [line for line in lines if line.state in DUE]
        if not pending:
            return
        with progress_of(self._output, "the bridge goes on with", len(pending)) as progress:
            while pending and time.monotonic() < end:
                time.sleep(LOOK_AGAIN)
                there = self._bridge.runtime.operations.many([line.operation_id for line in pending])
                for line in pending:
                    self._note(line, there[line.operation_id], new=True)
                    if line.state not in DUE:
                        progress.advance(line.state)
                pending = [line for line in pending if line.state in DUE]

    # ------------------------------------------------------------------ afterwards

    def _summary(self, plan: Plan) -> dict[str, object]:
        states = Counter(line.state for line in plan.lines)
        return {
            "rows": len(plan.lines) - states["empty"] - states["continued"],
            "states": dict(states),
            "invalid": [{"line": line.line, "detail": line.detail} for line in plan.lines if line.state == "invalid"],
            "warnings": [{"line": line.line, "detail": line.warning} for line in plan.lines if line.warning],
        }

    def _tell(self, plan: Plan, result: Path, seconds: float) -> None:
        output = self._output
        carried = sum(line.state != "not carried" for line, _ in plan.to_carry)
        measured = {
            "carried": carried,
            "seconds": round(seconds, 1),
            "per_minute": round(60 * carried / seconds) if carried else 0,
            "peak_memory_mb": _peak_memory(),
            "result": str(result),
        }
        output.document({**self._summary(plan), **measured})
        counts = Counter(line.state for line in plan.lines)
        output.line()
        output.table(("rows", "state"), [(f"{number:,}", state) for state, number in counts.most_common()])
        output.line(
            f"Carried: {carried:,} in {_duration(seconds)}, {measured['per_minute']:,} a minute, "
            f"at most {measured['peak_memory_mb']} MB of memory."
        )
        output.line(f"Every line, with its new id: {result}")

    def _end(self, lines: Sequence[Line]) -> None:
        if any(line.state not in (State.SUCCEEDED, *FINE) for line in lines):
            raise NotAllWellError


def _may_be_sent_again(operation: Operation) -> bool:
    """What a person has given up is not taken up by a file that is imported once more; the CRM may send it."""
    is_discarded = operation.last_attempt is not None and operation.last_attempt.event is Event.DISCARDED
    return operation.state in REPLACEABLE and not is_discarded


def _write(result: Path, lines: Sequence[Line]) -> None:
    with opened(result) as file:
        writer = csv.writer(file)
        writer.writerow(("line", "event_key", "state", "id", "operation_id", "detail"))
        for one in lines:
            writer.writerow(map(escaped, (one.line, one.event_key, one.state, one.id, one.operation_id, one.detail)))


def _peak_memory() -> int:
    """Megabytes. On Linux what getrusage tells is the parent's, if that was larger; macOS counts it in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        peak = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        return round(int(peak[1]) / 1024) if peak else 0
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 * 1024))


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"

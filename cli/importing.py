"""`crm-bridge import`: existing records, sent as if the CRM had sent each row just now.

The bridge's own engine sends them, under the same operation ids as live traffic. So a row that was sent before, by
anyone, is not sent again; a run can be interrupted and started again; and what could not be finished is finished by the
bridge itself.
"""

import csv
import json
import re
import resource
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from cli.bridge import Bridge
from cli.cells import escaped, opened, refuse_special
from cli.command import DryRun, File, Name, NotAllWellError, WrongInputError, Yes, command
from cli.output import Output
from cli.progress import Progress, progress_of
from cli.prompts import confirm
from cli.rows import rows
from crm_bridge import Flow
from crm_bridge.engine import DUE, REPLACEABLE
from crm_bridge.errors import Event, RunningError, SignInRefusedError, StorageError
from crm_bridge.fields import compared
from crm_bridge.flow import Import
from crm_bridge.inbound.api import CHANGED
from crm_bridge.outbound.transport import Deadline
from crm_bridge.storage.operation import Operation, State, fingerprint
from operations.flows import flows

AT_ONCE = 4
"""Rows that are being sent to a vendor at a time."""
PATIENCE = 25.0
"""Seconds for one row."""
GENTLE = 120
"""Rows a minute; illu documents no limit."""
STORAGE_PAUSES = (1.0, 4.0, 15.0)
"""Seconds before a row is retried that the bridge's storage did not take."""
FINE = (State.SUCCEEDED, "repeated", "not sent", "empty", "continued")
"""The states of a file's lines that are no failure."""
LOOK_AGAIN = 5.0
"""Seconds between two looks at the operations that the bridge finishes by itself."""

app = typer.Typer(help="Import existing records: customers, tickets, key links.", no_args_is_help=True)


Rate = Annotated[int | None, typer.Option(min=1, help="Rows a minute at most. By default what suits the vendor.")]
ResultFile = Annotated[Path | None, typer.Option(help="The result file. By default FILE.result.csv, beside the file.")]
Wait = Annotated[int, typer.Option(min=0, help="Minutes to wait for rows that the bridge finishes by itself.")]


def _add_command(flow: type[Flow[Any, Any, Any]], declared: Import) -> None:
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
        one = Run(bridge, name, flow, declared)
        one.run(file, dry_run=dry_run, rate=rate, result=result, wait=wait, yes=yes)

    run.__doc__ = declared.help
    command(app, declared.name)(run)


for _flow in flows().values():
    if _flow.imports:
        _add_command(_flow, _flow.imports)


@dataclass
class Line:
    """One line of the file, and its result. `command` is None if there is nothing to send."""

    line: int
    state: str
    event_key: str = ""
    operation_id: str = ""
    id: str = ""
    detail: str = ""
    warning: str = ""
    command: BaseModel | None = None


@dataclass
class Plan:
    """The rows to send, and why others are not sent. `lines` has every line of the file but the header."""

    lines: list[Line]
    counts: Counter[str] = field(default_factory=Counter)
    to_send: list[tuple[Line, BaseModel]] = field(default_factory=list)

    def report(self) -> dict[str, object]:
        states = Counter(line.state for line in self.lines)
        return {
            "rows": len(self.lines) - states["empty"] - states["continued"],
            "states": dict(states),
            "invalid": [{"line": line.line, "detail": line.detail} for line in self.lines if line.state == "invalid"],
            "warnings": [{"line": line.line, "detail": line.warning} for line in self.lines if line.warning],
        }


class Run:
    """The import of a file, whose rows are as its flow declares (`crm_bridge.flow.Import`)."""

    def __init__(self, bridge: Bridge, tenant: str, flow: type[Flow[Any, Any, Any]], declared: Import) -> None:
        self._bridge = bridge
        self._output = bridge.output
        self._tenant = tenant
        self._flow = flow
        self._declared = declared
        self._resume_at = 0.0

    def run(self, file: Path, *, dry_run: bool, rate: int | None, result: Path | None, wait: int, yes: bool) -> None:
        """Raise NotAllWellError if a row was not done."""
        if result is None and str(file) == "-":
            raise WrongInputError("Name the result file with --result, because the rows come from standard input.")
        result = result or file.with_name(f"{file.name}.result.csv")
        refuse_special(result)  # before anything is sent
        self._bridge.expect_tenant(self._tenant)
        rate = rate or self._suitable_rate()  # first: a flow needs the bridge's tables
        plan = self._plan(self._checked(file))
        _print_plan(self._output, plan, rate)
        if dry_run:
            self._output.document({"dry_run": True, **plan.report()})
        else:
            if plan.to_send and not yes:
                confirm(f"Send {len(plan.to_send):,} rows?")
            begun = time.monotonic()
            try:
                self._send(plan.to_send, rate)
                self._await(plan.lines, wait)
            finally:  # also after an interruption
                _write(result, plan.lines)
                _print_result(self._output, plan, result, time.monotonic() - begun)
        if any(line.state not in FINE for line in plan.lines):
            raise NotAllWellError

    def _suitable_rate(self) -> int:
        """Return how many rows a minute suit the vendor. Raises NotConfiguredError."""
        engine = self._bridge.runtime.engine
        pace = engine.ask(engine.bind(self._flow, self._tenant, Deadline(PATIENCE)), lambda vendor: vendor.pace())
        return round(pace.calls * 60 / pace.seconds) // self._declared.calls if pace else GENTLE

    # ------------------------------------------------------------------ before

    def _checked(self, file: Path) -> list[Line]:
        """Return every line. Of those with the same event, only the first has a command."""
        flow, declared = self._flow(), self._declared
        first: dict[str, tuple[int, str, str]] = {}
        lines: list[Line] = []
        for row in rows(file, declared.row or flow.command, declared.as_json):
            if row.value is None:
                lines.append(Line(row.line, "invalid" if row.errors else "empty", detail=row.problem))
            else:
                event = declared.to_command(row.value) if declared.to_command else row.value
                key, content = flow.key(event), fingerprint(compared(event))
                operation_id = flow.operation_id(self._tenant, key)
                number, content_before, key_before = first.setdefault(operation_id, (row.line, content, key))
                if number == row.line:
                    line = Line(row.line, "", key, operation_id, command=event)
                elif content == content_before:
                    line = Line(row.line, "repeated", key, detail=f"repeats line {number}")
                else:
                    line = Line(row.line, "invalid", key, detail=f"differs from line {number}, which has the same id")
                if key != key_before:
                    line.warning = f"has the id of line {number} in another form: {key} is {key_before}"
                lines.append(line)
            lines += [
                Line(row.line + more, "continued", detail=f"belongs to line {row.line}") for more in range(1, row.lines)
            ]
        if all(line.state == "empty" for line in lines):
            raise WrongInputError(f"{file} has no rows.")
        return lines

    def _plan(self, lines: list[Line]) -> Plan:
        known = self._bridge.runtime.operations.many([line.operation_id for line in lines if line.operation_id])
        plan = Plan(lines)
        for line in lines:
            operation = known.get(line.operation_id)
            if line.command is None:
                plan.counts[line.state] += 1
            elif operation is None or _may_be_sent_again(operation):
                plan.counts["new" if operation is None else "rejected before"] += 1
                line.state = "not sent"
                plan.to_send.append((line, line.command))
            else:
                self._note(line, operation, is_new=False)
                plan.counts[f"known already: {operation.state}"] += 1
                if operation.fingerprint != fingerprint(compared(line.command)):
                    line.detail = f"{line.detail}; {CHANGED}".removeprefix("; ")
        return plan

    # ------------------------------------------------------------------ meanwhile

    def _send(self, to_send: Sequence[tuple[Line, BaseModel]], rate: int) -> None:
        """Send all. After an error or an interruption only the rows that are being sent are finished."""
        transport, vendor = self._bridge.runtime.transport, self._flow.vendor.name
        sending: set[Future[None]] = set()
        turn = time.monotonic()
        with (
            progress_of(self._output, self._declared.name, len(to_send)) as progress,
            ThreadPoolExecutor(AT_ONCE) as pool,
        ):
            try:
                for line, event in to_send:
                    self._pause(vendor, progress)
                    time.sleep(max(0.0, turn - time.monotonic()))
                    turn = max(turn, time.monotonic()) + 60 / rate
                    is_down = transport.is_down(vendor, self._tenant)  # then one finds out whether it is back
                    sending.add(pool.submit(self._send_one, line, event, progress))
                    if is_down or len(sending) >= AT_ONCE:
                        done, sending = wait_for(sending, return_when=ALL_COMPLETED if is_down else FIRST_COMPLETED)
                        for future in done:
                            future.result()
                for future in sending:
                    future.result()
            except KeyboardInterrupt:
                progress.say("Stopping after the rows that are being sent ...")
                raise

    def _pause(self, vendor: str, progress: Progress) -> None:
        """Wait while the vendor is down, or has asked for time."""
        transport, clock = self._bridge.runtime.transport, self._bridge.runtime.clock
        while (left := max(transport.retry_at(vendor, self._tenant), self._resume_at) - clock()) > 0:
            progress.say(f"{vendor} is down or asks for a pause. Trying again in {left:.0f} s")
            time.sleep(min(1.0, left))
        progress.say("")

    def _send_one(self, line: Line, event: BaseModel, progress: Progress) -> None:
        """Raise SignInRefusedError, NotConfiguredError or StorageError: then no other row would succeed.

        The plan may be hours old, and a person may have discarded the event since, or erased its data.
        """
        for pause in (*STORAGE_PAUSES, None):
            try:
                known = self._bridge.runtime.operations.get(line.operation_id)
                if known and not _may_be_sent_again(known):
                    self._note(line, known, is_new=False)
                    break
                outcome = self._bridge.runtime.engine.run(
                    self._flow, event, tenant=self._tenant, deadline=Deadline(PATIENCE)
                )
            except RunningError:
                line.state, line.detail = State.SENDING, "is being sent by another process"
                break
            except StorageError:
                if pause is None:
                    raise
                time.sleep(pause)
                continue
            self._note(line, outcome.operation, is_new=outcome.ran)
            if isinstance(outcome.error, SignInRefusedError):
                raise outcome.error
            if outcome.error and outcome.error.retry_after:
                self._resume_at = self._bridge.runtime.clock() + outcome.error.retry_after
            break
        progress.advance(line.state)

    def _note(self, line: Line, operation: Operation, *, is_new: bool) -> None:
        line.state = operation.state
        result = json.loads(operation.result) if operation.result else {}
        line.id = str(result.get(self._declared.id, ""))
        if operation.state is State.SUCCEEDED:
            line.detail = "" if is_new else "known already"
        elif operation.last_attempt:
            line.detail = operation.last_attempt.reason

    def _await(self, lines: Sequence[Line], minutes: int) -> None:
        """Wait until the bridge has finished the rest by itself, at most this many minutes."""
        end = time.monotonic() + 60 * minutes
        pending = [line for line in lines if line.state in DUE]
        if not pending:
            return
        with progress_of(self._output, "unfinished", len(pending)) as progress:
            while pending and time.monotonic() < end:
                time.sleep(LOOK_AGAIN)
                operations = self._bridge.runtime.operations.many([line.operation_id for line in pending])
                for line in pending:
                    if operation := operations.get(line.operation_id):
                        self._note(line, operation, is_new=True)
                    else:
                        line.state, line.detail = "erased", "its data were erased meanwhile"
                    if line.state not in DUE:
                        progress.advance(line.state)
                pending = [line for line in pending if line.state in DUE]


# ---------------------------------------------------------------------- output


def _print_plan(output: Output, plan: Plan, rate: int) -> None:
    for line in plan.lines:
        if line.state == "invalid":
            output.line(f"line {line.line}: {line.detail}", style="red")
        if line.warning:
            output.line(f"line {line.line}: {line.warning}", style="yellow")
    output.table(("rows", "what"), [(f"{number:,}", what) for what, number in plan.counts.most_common()])
    count = len(plan.to_send)
    duration = _duration(60 * count / rate)
    output.line(
        f"{count:,} to send, at most {rate:,} a minute: about {duration}." if count else "There is nothing to send."
    )


def _print_result(output: Output, plan: Plan, result: Path, seconds: float) -> None:
    sent = sum(line.state != "not sent" for line, _ in plan.to_send)
    measured = {
        "sent": sent,
        "seconds": round(seconds, 1),
        "per_minute": round(60 * sent / seconds) if sent else 0,
        "peak_memory_mb": _peak_memory(),
        "result": str(result),
    }
    output.document({**plan.report(), **measured})
    counts = Counter(line.state for line in plan.lines)
    output.line()
    output.table(("rows", "state"), [(f"{number:,}", state) for state, number in counts.most_common()])
    output.line(
        f"Sent: {sent:,} in {_duration(seconds)}, {measured['per_minute']:,} a minute, "
        f"at most {measured['peak_memory_mb']} MB of memory."
    )
    output.line(f"Every line, with its new id: {result}")


def _may_be_sent_again(operation: Operation) -> bool:
    """Return whether a file may send it again. An event that a person discarded may be sent again only by the CRM."""
    is_discarded = operation.last_attempt is not None and operation.last_attempt.event is Event.DISCARDED
    return operation.state in REPLACEABLE and not is_discarded


def _write(result: Path, lines: Sequence[Line]) -> None:
    with opened(result) as file:
        writer = csv.writer(file)
        writer.writerow(("line", "event_key", "state", "id", "operation_id", "detail"))
        for one in lines:
            writer.writerow(map(escaped, (one.line, one.event_key, one.state, one.id, one.operation_id, one.detail)))


def _peak_memory() -> int:
    """Return megabytes. On Linux getrusage returns the parent's, if that was larger; macOS counts in bytes."""
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

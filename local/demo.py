"""`make demo`: start the bundle, play the steps of demo.yaml, print each, and fail if one is not as it should be."""

import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Literal

import requests
from pydantic import BaseModel, BeforeValidator, ConfigDict, TypeAdapter
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from samtranslator.yaml_helper import yaml_parse

from local.events import load_event
from local.stack import UPYA_KEY, WEBHOOK_KEY, Stack
from local.vendors.alterations import ALTERATIONS
from local.vendors.egito import CLUB, EgitoSimulator
from local.vendors.illu import IlluSimulator
from local.vendors.izzitup import FAILURES, IzzitUpSimulator
from local.vendors.revio import RevioSimulator
from local.vendors.webhook import ReceiverSimulator

LOG = Path(".local/demo.log")
STEPS = Path(__file__).with_suffix(".yaml")
NARROWEST, WIDEST = 80, 120
"""Columns. 80 are also those of a file or a pipe."""
NEXT = """What to try next:

  make run                       leaves it running, and says what to send to it
  http://127.0.0.1:3000/console  then shows what happens there
  export CRM_BRIDGE_LOCAL=1      lets the command line work on it, as in:
  .venv/bin/crm-bridge tail demo
  .venv/bin/crm-bridge show C-1001
"""
TIMEOUT = 30
FINAL = ("succeeded", "rejected", "needs_review")

type Texts = Annotated[list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]


class DemoStack(Stack):
    """The local stack, with the simulators of this bundle's vendors by their names."""

    @property
    def illu(self) -> IlluSimulator:
        return self.simulator(IlluSimulator)

    @property
    def revio(self) -> RevioSimulator:
        return self.simulator(RevioSimulator)

    @property
    def izzitup(self) -> IzzitUpSimulator:
        return self.simulator(IzzitUpSimulator)

    @property
    def egito(self) -> EgitoSimulator:
        return self.simulator(EgitoSimulator)

    @property
    def receiver(self) -> ReceiverSimulator:
        return self.simulator(ReceiverSimulator)


class Step(BaseModel):
    """One request, and what must come of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    what: str
    do: str = ""
    """The action before, see `Player._prepare`."""
    fault: dict[str, dict[str, Any]] = {}
    """Faults of the next requests to simulators, by vendor."""
    event: str = ""
    """A file in events/, without `.json`: the request."""
    request: str = ""
    """Method and path, instead of the event's. In the path, `…` is the club, and `{name}` an id that was kept."""
    set: dict[str, Any] = {}
    """Members of the body, besides or instead of the event's."""
    without: str = ""
    """A member of the event's body that is left out."""
    key: str = ""
    """Whose API key is used; the event's or the demo tenant's, if it is not given."""
    settle: bool = False
    """Whether time passes until the operation has ended, and an hour more for each of `hours`."""
    hours: int = 0
    keep: str = ""
    """The name under which the record's id in the response is kept. That of the last operation is `operation`."""
    status: int
    says: Texts = []
    """Texts in what is printed of the response."""
    holds: str | None = ""
    """The vendor's records then; as after the step before, if it is not given. None: it is not printed."""


class Chapter(BaseModel):
    """A flow at work: `vendor` is the simulator whose records are printed (see `records_of`). A pause becomes an empty
    line."""

    title: str
    vendor: str
    steps: list[Step | Literal["pause"]]

    @property
    def holder(self) -> str:
        """Who has the records that are printed."""
        names = {"revio": "Rev.io", "izzitup": "IzzitUp", "receiver": "received", "egito": "Egito"}
        return names.get(self.vendor.removeprefix("records of ").lower(), self.vendor)


class Player:
    """Plays steps on a running stack, and remembers ids from one to the next."""

    def __init__(self, stack: DemoStack) -> None:
        self._stack = stack
        self._ids = defaultdict[str, str](lambda: "unknown")  # after a step that went wrong
        self._keys = {
            "none": None,
            "wrong": "crmb_not-a-key",
            "upya": UPYA_KEY,
            "webhook": WEBHOOK_KEY,
            "reader": stack.add_key("demo", frozenset({"operations:read"}), "no scope"),
            "support": stack.add_key(
                "demo", frozenset({"operations:read", "operations:resolve", "operations:payload"}), "Ada, support"
            ),
        }

    def play(self, step: Step) -> tuple[str, int, str]:
        """Return the request as it is printed, the status and what is printed of the response."""
        self._stack.move_clock(1)  # instead of waiting a second for the next turn
        self._prepare(step)
        event = load_event(*step.event.split("/")) if step.event else {}
        http = event.get("requestContext", {}).get("http", {})
        method, path = step.request.split(" ", 1) if step.request else (http["method"], http["path"])
        body = json.loads(event.get("body") or "{}")
        if isinstance(body, dict):
            body = {**body, **step.set}
            body.pop(step.without, None)
        printed = re.sub(r"\{\w+\}", "{id}", path).replace(f"/connector/clubs/{CLUB}", "…")
        named = {"/sites": "customer_id", "/jobs": "ticket_id"}.get(path)
        sent = [method, printed, body.get(named, "") if named else ""]
        path = path.replace("…", f"/connector/clubs/{CLUB}").format_map(self._ids)
        own = event.get("headers", {})
        headers = {"Authorization": own.get("authorization", f"Bearer {self._stack.api_key}")}
        if "x-api-key" in own:
            headers = {"x-api-key": own["x-api-key"]}
        if step.key:
            key = self._keys[step.key]
            headers = {"Authorization": f"Bearer {key}"} if key else {}
        for _ in range(5 if step.settle else 1):
            if step.settle:
                self._stack.deliver_due(after=60)
            response = requests.request(
                method, self._stack.url + path, json=body or None, headers=headers, timeout=TIMEOUT
            )
            if step.settle and response.json().get("state") in FINAL:
                break
        for seconds in (60, *[3600] * step.hours) if step.settle else ():
            self._stack.deliver_due(after=seconds)
        if step.keep:
            self._ids[step.keep] = response.json().get("recordID", "")
        if path.startswith("/requests?"):
            self._ids["request"] = response.json()["requests"][0]["id"]
        if path.startswith(("/in/", "/requests/")):
            self._stack.deliver()  # it was put on its queue at once
        if response.status_code == HTTPStatus.ACCEPTED:
            self._ids["operation"] = response.headers["Location"].rpartition("/")[2]
        self._stack.illu.alterations = ()
        self._stack.izzitup.allowed.add("ops-bot")
        return " ".join(sent).strip(), response.status_code, summary(response)

    def _prepare(self, step: Step) -> None:
        """Do what happens before the request. IzzitUp refuses by itself where it can be made to do so."""
        stack = self._stack
        for vendor, fault in step.fault.items():
            getattr(stack, vendor).fail(**fault)
        match step.do:
            case "":
                pass
            case "illu cuts names at an emoji":
                stack.illu.alterations = (ALTERATIONS["cut at an emoji"],)
            case "somebody makes a key link at Rev.io":
                stack.revio.account.add_key_link(4, 2, 2044, "001XX0000NOTOURS")
            case "IzzitUp takes the permission away":
                stack.izzitup.allowed.clear()
            case "IzzitUp changes the password":
                stack.izzitup.users["ops-bot"] = "izzitup-demo-password-1"
            case "the tenant gets the password of IzzitUp":
                stack.izzitup.users["ops-bot"] = "izzitup-demo-password-2"
                stack.put_secret("demo", stack.demo_tenant())
            case "Egito revokes the token":
                stack.egito.revoke()
            case "the tenant mends the mapping of its source":
                document = json.loads(stack.demo_tenant())
                (entry,) = document["sources"]["hubspot"]["events"]
                entry["expression"] = entry["expression"].replace("(latitude)", "(latitude || gps_latitude)")
                stack.put_secret("demo", json.dumps(document))
            case "the receiver wants no more webhooks":
                stack.receiver.refuses_with = HTTPStatus.GONE
            case message:
                (failure,) = (one for one in FAILURES if one.startswith(message))
                stack.izzitup.failures.append(failure)


def records_of(stack: DemoStack, vendor: str) -> list[str]:
    """Return what a simulator holds, one line for each kind of record, person, service or webhook."""
    match vendor:
        case "illu":
            return [f"sites {len(stack.illu.sites)}, jobs {len(stack.illu.jobs)}"]
        case "revio":
            return [f"key links {len(stack.revio.key_links)}"]
        case "izzitup":
            names = {"6": "impaired", "7": "down"}
            broken = [
                f"{one['key']} {names[one['status']]}" for one in stack.izzitup.services if one["status"] in names
            ]
            return [", ".join(broken) or "all up"]
        case "egito":
            return [
                f"{one['firstName']} {str(one['type']).lower()}"
                + (f", owner {one['ownerId']}" if one["ownerId"] else "")
                for one in stack.egito.records["Contact"]
            ]
        case "records of Egito":
            leads, contacts, orders = (stack.egito.records[entity] for entity in ("Lead", "Contact", "Order"))
            return [
                "leads " + ", ".join(str(one["firstName"]) for one in leads),
                ", ".join(f"order {one['name']}" for one in orders) or "no orders",
                *(f"Jan's mobile {one['mobile']}" for one in contacts if one["firstName"] == "Jan"),
            ]
    return [f"{one['data']['event_key']} {one['data']['state']}" for one in stack.receiver.received.values()]


def summary(response: requests.Response) -> str:
    """Return what is worth reading in a response."""
    body: Mapping[str, Any] = response.json() if response.content else {}
    match body:
        case {"message": text, "result": result, **more} if "active" not in more:
            return f"{result}: {text}"
        case {"state": state, "sender": sender}:
            return f"{state}, from {sender}"
        case {"errors": errors}:
            return "\n".join(f"{error['field']}: {error['message']}" for error in errors)
        case {"title": title, "status": status, "detail": detail}:
            return str(title if status in (401, 403) else detail)
        case {"links": links} if "state" not in body:
            return ", ".join(f"{link['system']} {link['entity']} {link['id']}" for link in links)
        case {"state": "needs_review", "candidates": [*candidates], "attempts": [*_, last]}:
            found = [f"{one['id']} {one.get('name', '').strip()}" for one in candidates]
            return "\n".join([f"needs_review: {last['reason']}", *found])
        case {"state": state, "attempts": attempts}:
            return f"{state} ({', then '.join(attempt['event'] for attempt in attempts)})"
        case {"systems": systems}:
            return ", ".join(f"{system['name']} {system['id']}" for system in systems)
        case {"services": services}:
            return ", ".join(f"{service['key']} {service['status_name']}" for service in services)
        case {"maps": {"prospect": {"missing": missing}}}:
            return f"fields that Egito lacks: {', '.join(missing) or 'none'}"
        case {"staff": rows} | {"leadSources": rows}:
            return "\n".join(f"{row['name']} {row['id']}" for row in rows)
        case {"stored": _, "quarantined": _}:
            return ", ".join(f"{state} {number}" for state, number in body.items() if number)
        case {"requests": [{"state": state, "errors": [wrong, *_]}, *_]}:
            return f"{state}: {wrong['field']} {wrong['message']}"
        case {"operations": operations}:
            flows = Counter(operation["flow"] for operation in operations)
            return "\n".join(f"{flow}: {count}" for flow, count in sorted(flows.items())) or "nothing"
        case {"entity_type": kind, "id": record_id, "system": system, "internal_id": internal_id}:
            return f"id {record_id}: {system} {kind} {internal_id}"
        case {"records": records, "has_more": has_more}:
            rows = [f"{one['entity']} {one['id']}" for one in records]
            return "\n".join([*rows, "and more"] if has_more else rows)
        case {"entity": entity, "id": record_id, "fields": fields}:
            shown = [f"{name} {value}" for name, value in fields.items() if value]
            return f"{entity} {record_id}: {', '.join(shown)}"
        case {"entries": entries}:
            return ", ".join(f"{entry['name']} {entry['id']}" for entry in entries)
        case {"ignored": reason}:
            return f"ignored: {reason}"
        case {"status_name": status, "id": service_id}:
            return f"{body.get('name', f'service {service_id}')} {status}"
        case {"active": _, "name": name, "id": source_id}:
            return f"{name} {source_id}"
        case {"entity": entity, "id": record_id}:
            return f"{entity} {record_id}"
        case {"state": state, "reason": reason}:
            return f"{state}: {reason}"
    ids = ", ".join(f"{name} {body[name]}" for name in ("job_id", "site_id", "state") if name in body)
    return "\n".join([ids, *body.get("warnings", [])])


def main() -> int:
    chapters = TypeAdapter(list[Chapter]).validate_python(yaml_parse(STEPS.read_text()))
    console = Console(file=sys.stdout, highlight=False)  # standard output as it is before the redirection
    console.width = min(max(console.width, NARROWEST), WIDEST) if console.is_terminal else NARROWEST
    LOG.parent.mkdir(exist_ok=True)
    wrong: list[str] = []
    with LOG.open("w") as log, redirect_stdout(log), DemoStack(background=False, aws_over_http=False) as stack:
        console.print("\n[bold]CRM Bridge[/bold] is running on this machine, beside simulated vendors.")
        player = Player(stack)
        for chapter in chapters:
            wrong += _play(console, stack, player, chapter)
        _print_records(console, stack)
    count = sum(step != "pause" for chapter in chapters for step in chapter.steps)
    if wrong:
        console.print(f"\n[bold red]{len(wrong)} of {count} steps went wrong:[/bold red] {'; '.join(wrong)}.")
    else:
        console.print(f"\n[bold green]All {count} steps went right.[/bold green]", end=" ")
    console.print(f"The functions' log is in {LOG}.\n\n{NEXT}", end="")
    return 1 if wrong else 0


def _play(console: Console, stack: DemoStack, player: Player, chapter: Chapter) -> list[str]:
    """Play and print a chapter. Return which of its steps went wrong."""
    console.print()
    console.rule(Text(chapter.title, "bold"), align="left", style="dim")
    wrong = []
    expected, printed = "", [""]
    for step in chapter.steps:
        if step == "pause":
            console.print()
            continue
        request, status, text = player.play(step)
        records = records_of(stack, chapter.vendor)
        if "holds" in step.model_fields_set and step.holds is not None:
            expected = step.holds
        is_right = status == step.status and all(part in text for part in step.says)
        is_right = is_right and (step.holds is None or "; ".join(records) == expected)
        wrong += [] if is_right else [step.what]
        _print_step(console, step.what, f"{request}  {status}", is_right=is_right)
        news = (
            [] if step.holds is None or records == printed else [f"{chapter.holder}: {', '.join(records) or 'nothing'}"]
        )
        for line in [*text.splitlines(), *news]:
            console.print(Padding(Text(line, "cyan" if line in news else "dim"), (0, 0, 0, 6), expand=False))
        printed = records if news else printed
    return wrong


def _print_step(console: Console, what: str, request: str, *, is_right: bool) -> None:
    """Print a step in one line, with its request at the right; in two if there is not enough room."""
    mark = Text("  ✓ ", "green") if is_right else Text("  ✗ ", "bold red")
    room = console.width - len(mark) - len(what) - len(request)
    if room >= 2:
        console.print(mark, what, " " * room, request, sep="", soft_wrap=True)
    else:
        console.print(mark, what, sep="", soft_wrap=True)
        console.print(request, justify="right")


def _print_records(console: Console, stack: DemoStack) -> None:
    key_link = "integration_key_link_id internal_id external_id"
    tables: tuple[tuple[str, str, Sequence[Mapping[str, Any]]], ...] = (
        ("The sites at illu", "site_id name latitude longitude", stack.illu.sites),
        ("The jobs at illu", "job_id site_id name notes", stack.illu.jobs),
        ("The key links at Rev.io", key_link, stack.revio.key_links),
        ("The people at Egito", "id firstName lastName type status mobile", stack.egito.records["Contact"]),
    )
    for title, names, records in tables:
        table = Table(*names.split(), box=SIMPLE_HEAD)
        for record in records:
            table.add_row(*(" ".join(str(record.get(name, "")).split()) for name in names.split()))
        console.print(f"\n{title} in the end:", table)


if __name__ == "__main__":
    sys.exit(main())

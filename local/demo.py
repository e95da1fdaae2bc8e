"""`make demo`: starts the bundle, plays every flow, prints what happened, and fails if anything is not as it should."""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import requests
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from local.events import load_event
from local.stack import Stack
from local.vendors.simulator import Kind

LOG = Path(".local/demo.log")
TIMEOUT = 30


@dataclass(frozen=True)
class Step:
    """One thing that was sent, what came back, how much illu then holds, and whether all that is right."""

    what: str
    sent: str
    status: int
    answer: str
    held: str
    right: bool


def main() -> int:
    console = Console(file=sys.stdout, width=136, highlight=False)  # standard output as it is before the redirection
    LOG.parent.mkdir(exist_ok=True)
    with LOG.open("w") as log, redirect_stdout(log), Stack(background=False) as stack:
        console.print("\n[bold]CRM Bridge[/bold] is running on this machine, and beside it a simulated illu.\n")
        table = Table("", "What happens", "Request", "Status", "Answer", "illu holds", box=SIMPLE_HEAD, pad_edge=False)
        table.columns[2].no_wrap = table.columns[5].no_wrap = True
        steps = []
        for chapter in _Play(stack).chapters():
            for step in chapter:
                steps.append(step)
                mark = Text("✓", "green") if step.right else Text("✗", "bold red")
                table.add_row(mark, step.what, step.sent, str(step.status), step.answer, step.held)
            table.add_section()
        console.print(table)
        _print_records(console, stack)
    wrong = [step.what for step in steps if not step.right]
    if wrong:
        console.print(f"\n[bold red]{len(wrong)} of {len(steps)} steps went wrong:[/bold red] {'; '.join(wrong)}.")
    else:
        console.print(f"\n[bold green]All {len(steps)} steps went right.[/bold green]", end=" ")
    console.print(f"The functions' log is in {LOG}.")
    return 1 if wrong else 0


class _Play:
    """The steps of the demo, one after the other, each checked against what illu holds."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._customer: dict[str, Any] = json.loads(load_event("create_site", "new")["body"])

    def chapters(self) -> Iterator[Iterator[Step]]:
        yield self._once()
        yield self._linked()
        yield self._refused()
        yield self._healed()
        yield self._jobs()

    def _once(self) -> Iterator[Step]:
        new = self._post(self._customer)
        site_id = new.json().get("site_id")
        yield self._step("A new customer", "POST /sites C-1001", new, new.status_code == 201 and self._holds(1))
        again = self._post(self._customer)
        same = again.status_code == 200 and again.json()["site_id"] == site_id
        yield self._step("The same event once more", "POST /sites C-1001", again, same and self._holds(1))
        changed = self._post({**self._customer, "address": "Moi Ave 13"})
        warned = changed.status_code == 200 and "warnings" in changed.json()
        yield self._step("The same event, changed", "POST /sites C-1001", changed, warned and self._holds(1))

    def _linked(self) -> Iterator[Step]:
        from_crm = self._get("/links/crm/customer/C-1001")
        site_id = str(self._stack.illu.sites[0]["site_id"])
        there = [link["id"] for link in from_crm.json().get("links", [])] == [site_id]
        yield self._step("Which site is this customer?", "GET /links/crm/customer/C-1001", from_crm, there)
        from_illu = self._get(f"/links/illu/site/{site_id}")
        back = [link["id"] for link in from_illu.json().get("links", [])] == ["C-1001"]
        yield self._step("Which customer is this site?", f"GET /links/illu/site/{site_id}", from_illu, back)

    def _refused(self) -> Iterator[Step]:
        invalid = self._post(json.loads(load_event("create_site", "invalid")["body"]))
        fields = {error["field"] for error in invalid.json().get("errors", [])}
        named = {"customer_id", "latitude", "longitude", "address", "adress"}
        yield self._step(
            "Five mistakes at once", "POST /sites", invalid, invalid.status_code == 422 and fields == named
        )
        for what, key, status in (
            ("No key", None, 401),
            ("A wrong key", "crmb_not-a-key", 401),
            ("A key without the scope", self._stack.add_key("demo", frozenset({"operations"}), "no scope"), 403),
        ):
            answer = self._post({**self._customer, "customer_id": "C-1002"}, key=key)
            yield self._step(what, "POST /sites C-1002", answer, answer.status_code == status and self._holds(1))

    def _healed(self) -> Iterator[Step]:
        for number, (kind, what) in enumerate(
            ((Kind.CLOSE_AFTER, "illu does it, but its answer is lost"), (Kind.UNAVAILABLE, "illu is down (503)")), 2
        ):
            self._stack.illu.fail(kind)
            customer = {**self._customer, "customer_id": f"C-{1008 + number}", "name": f"Shop {number}, Eldoret"}
            accepted = self._post(customer)
            sent = f"POST /sites {customer['customer_id']}"
            yield self._step(what, sent, accepted, accepted.status_code == 202)
            healed = self._wait_until_settled(accepted.headers["Location"])
            right = healed.json()["state"] == "succeeded" and self._holds(number)
            yield self._step("A minute later", "GET /operations/{id}", healed, right)

    def _wait_until_settled(self, location: str) -> requests.Response:
        """Move the clock on, a minute at a time, and let the dispatcher and the queue do their work."""
        for _ in range(5):
            self._stack.move_clock(60)
            self._stack.deliver_due()
            answer = self._get(location)
            if answer.json()["state"] in ("succeeded", "rejected", "parked"):
                break
        return answer

    def _step(self, what: str, sent: str, response: requests.Response, right: bool) -> Step:
        held = f"sites {len(self._stack.illu.sites)}, jobs {len(self._stack.illu.jobs)}"
        return Step(what, sent, response.status_code, _told(response.json()), held, right)

    def _jobs(self) -> Iterator[Step]:
        for what, case, status, sites, jobs in (
            ("A ticket of that customer", "new", 201, 3, 1),
            ("The same ticket once more", "repeated", 200, 3, 1),
            ("A ticket with mistakes", "invalid", 422, 3, 1),
            ("A ticket of a customer without a site", "no_site", 409, 3, 1),
            ("The same with the site's details", "with_site", 201, 4, 2),
        ):
            ticket = json.loads(load_event("create_job", case)["body"])
            answer = self._post(ticket, path="/jobs")
            right = answer.status_code == status and self._holds(sites) and len(self._stack.illu.jobs) == jobs
            yield self._step(what, f"POST /jobs {ticket['ticket_id']}".strip(), answer, right)
        job = self._get("/links/crm/ticket/T-501")
        there = [link["entity"] for link in job.json().get("links", [])] == ["job"]
        yield self._step("Which job is this ticket?", "GET /links/crm/ticket/T-501", job, there)

    def _holds(self, sites: int) -> bool:
        return len(self._stack.illu.sites) == sites

    def _post(self, body: object, key: str | None = "", path: str = "/sites") -> requests.Response:
        return requests.post(self._stack.url + path, json=body, headers=self._headers(key), timeout=TIMEOUT)

    def _get(self, path: str) -> requests.Response:
        return requests.get(self._stack.url + path, headers=self._headers(""), timeout=TIMEOUT)

    def _headers(self, key: str | None) -> dict[str, str]:
        """`key` "" is the tenant's own, None is none at all."""
        return {} if key is None else {"Authorization": f"Bearer {key or self._stack.api_key}"}


def _told(body: Mapping[str, Any]) -> str:
    """What is worth reading in an answer."""
    if "errors" in body:
        return "\n".join(f"{error['field']}: {error['message']}" for error in body["errors"])
    if "title" in body:
        return str(body["detail"] if body["status"] == HTTPStatus.CONFLICT else body["title"])
    if "links" in body:
        return ", ".join(f"{link['system']} {link['entity']} {link['id']}" for link in body["links"])
    if "attempts" in body:
        return f"{body['state']} ({', then '.join(attempt['event'] for attempt in body['attempts'])})"
    told = [f"{name} {body[name]}" for name in ("job_id", "site_id", "state") if name in body]
    return "\n".join(told + body.get("warnings", []))


def _print_records(console: Console, stack: Stack) -> None:
    sites, jobs = stack.illu.sites, stack.illu.jobs
    for title, names, records in (
        ("sites", ("site_id", "name", "latitude", "longitude"), sites),
        ("jobs", ("job_id", "site_id", "name", "notes"), jobs),
    ):
        table = Table(*names, title=f"The {title} that illu holds in the end:", title_justify="left", box=SIMPLE_HEAD)
        for record in records:
            table.add_row(*(" ".join(str(record.get(name, "")).split()) for name in names))
        console.print()
        console.print(table)


if __name__ == "__main__":
    sys.exit(main())

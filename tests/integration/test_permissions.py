"""Each function's role grants just what the function, and Lambda on its behalf, asks of AWS: no less, and no more.

    make permissions

writes the table in docs/permissions.md again.
"""

import json
import os
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from samtranslator.yaml_helper import yaml_parse

from crm_bridge.runtime import runtime
from crm_bridge.storage.operation import Operation, State, operation_id
from crm_bridge.vendors import PART_OF, called_functions
from local.template import TEMPLATE, Function
from local.vendors.simulator import Kind
from operations.flows import flows
from tests.cases import CASES
from tests.faults.events import (
    KINDS,
    Event,
    change_key_link,
    create_job,
    create_key_link,
    create_site,
    save_prospect,
    update_status,
)
from tests.faults.faults import FAULTS, Call
from tests.faults.harness import World
from tests.granted import SECRETS, permissions
from tests.integration.test_events import invoke
from tests.stack import Stack

TEMPLATE_SOURCE: dict[str, Any] = yaml_parse(TEMPLATE.read_text())
RESOURCES: dict[str, Any] = TEMPLATE_SOURCE["Resources"]
FUNCTIONS = {name: r["Properties"] for name, r in RESOURCES.items() if r["Type"] == "AWS::Serverless::Function"}
LOST = next(fault for fault in FAULTS if fault.name == "closed, done")
DOCUMENT = TEMPLATE.parent / "docs/permissions.md"
MARKERS = "<!-- permissions -->\n", "<!-- end of the permissions -->"
REWRITE = "REWRITE" in os.environ

type Permission = tuple[str, str, str]
"""A function, an action, and what it is on: a logical id, an index of one, the tenants' secrets or `*`."""


class Recorder(World):
    """A world that knows what its functions have asked of AWS."""

    def __init__(self) -> None:
        super().__init__(aws_without_http=True)
        self.asked: set[Permission] = set()
        self._function = self._last = ""

    def _invoke(self, function: Function, event: Mapping[str, Any]) -> Any:
        if function.name != self._last:  # no function remembers what another has read
            self.start_cold()
            self.stack._open_runtime()
        self._function = self._last = function.name
        try:
            return super()._invoke(function, event)
        finally:
            self._function = ""

    def arrived(self, call: Call, **how: bool) -> Any:
        if self._function:
            self.asked |= {(self._function, action, _logical(name)) for action, name in call.needs}
        return super().arrived(call, **how)

    def take_in(self, settings: Callable[[Stack, dict[str, Any]], None] = lambda *_: None) -> int:
        self.begin()
        return super().take_in(settings)

    def play(self, event: Event, *, lost: bool = True) -> None:
        """From its caller to its end, whatever has to be retried, looked for or decided on the way."""
        self.prepare(event)
        if lost:
            self.inject(LOST, event.writes)
        self.send(event)
        self.settle()


def _logical(name: str) -> str:
    """Return the template's name of a table, an index, a queue or a secret."""
    if name.startswith(os.environ["SECRET_PREFIX"]):
        return SECRETS.format(name.removeprefix(os.environ["SECRET_PREFIX"]).partition("/")[0])
    table, index, index_name = name.partition("/index/")
    variables = TEMPLATE_SOURCE["Globals"]["Function"]["Environment"]["Variables"]
    (value,) = (value for variable, value in variables.items() if os.environ[variable] in (table, name))
    logical = value["Ref"] if "Ref" in value else value["Fn::Sub"].removeprefix("${").removesuffix("}${TableSuffix}")
    return f"{logical}{index}{index_name}"


# ---------------------------------------------------------------------- what is asked for


def asked_for() -> set[Permission]:
    with Recorder() as world:
        _replay_the_folder(world)
        for number, make in enumerate(KINDS, 1):
            world.take_in()
            world.play(make(number))
        _cannot_be_asked(world)
        _has_several_alike(world)
        _changes_are_refused(world)
        _is_notified(world)
        _is_handed_over(world)
        _is_linked_by_a_person(world)
        _refuses_sign_in(world)
        _has_no_settings(world)
        _gets_a_new_token(world)
        _deletes_a_linked_record(world)
        _ends_a_quarantine(world)
        _reaches_every_flow(world)
        _comes_again_changed(world)
        return world.asked


def _replay_the_folder(world: Recorder) -> None:
    for event, _, _ in CASES:
        invoke(world.stack, event)
    for flow in (function for function in PART_OF if function in called_functions()):
        invoke(world.stack, f"{flow}/from_queue")


def _cannot_be_asked(world: Recorder) -> None:
    """So a person decides: to link what is there, to send it again, or to discard it."""

    def mute(_: Stack, document: dict[str, Any]) -> None:
        for kind in ("site", "job"):
            del document["illu"][f"{kind}_list_path"]
        for people in ("prospects", "members"):
            document["egito"][people].pop("reference")

    for number, make in enumerate((create_site, create_job, save_prospect), 100):
        world.take_in(mute)
        world.play(make(number))
        assert world.operators >= 1
    world.take_in(mute)
    world.inject(LOST, create_site(110).writes)
    world.send(create_site(110))
    world.pass_time(60)
    for in_review in world.operations():
        assert (
            world._request(world.tenant, "POST", f"/operations/{in_review.operation_id}/resolve", {"action": "discard"})
            == 200
        )


def _has_several_alike(world: Recorder) -> None:
    """A response is lost, and illu has two such records: the links say which of them is another event's."""
    illu = world.stack.illu
    for number, make, records, name in (
        (500, create_site, illu.sites, "site_id"),
        (501, create_job, illu.jobs, "job_id"),
    ):
        world.take_in()
        event = make(number)
        world.prepare(event)
        world.inject(LOST, event.writes)
        world.send(event)
        records.append({**records[-1], name: 990_000 + number})
        world.settle()
        records.pop()


def _is_linked_by_a_person(world: Recorder) -> None:
    """The record is verified at the vendor, with a new token if it needs one; the link wakes a job, and is undone."""

    def mute(_: Stack, document: dict[str, Any]) -> None:
        del document["illu"]["site_list_path"]
        for people in ("prospects", "members"):
            document["egito"][people].pop("reference")

    for lost, waits in ((create_site(160), (create_job(160),)), (save_prospect(161), ())):
        world.take_in(mute)
        world.inject(LOST, lost.writes)
        for event in (lost, *waits):
            world.send(event)
        for _ in range(3):
            world.pass_time(60)
        world.pass_time(24 * 3600, deliver=False)  # so that no token is left
        (in_review,) = (one for one in world.operations() if one.state == "needs_review")
        assert world.resolve(in_review) == 200
        path = f"/operations/{in_review.operation_id}/resolve"
        assert world._request(world.tenant, "POST", path, {"action": "unlink"}) == 200
    world.take_in()
    in_review = _in_review(world, "create_key_link", json.dumps({"link": create_key_link(162).body}))
    link = {"action": "link", "id": "1"}
    assert world._request(world.tenant, "POST", f"/operations/{in_review.operation_id}/resolve", link) == 422


def _in_review(world: Recorder, flow: str, payload: str = "{}") -> Operation:
    now = int(runtime().clock())
    in_review = Operation(
        operation_id=operation_id(world.tenant, flow, "needs_review"),
        tenant=world.tenant,
        flow=flow,
        function=flows()[flow].function,
        event_key="needs_review",
        state=State.NEEDS_REVIEW,
        fingerprint="",
        payload=payload,
        lease="l-1",
        created_at=now,
        updated_at=now,
    )
    runtime().operations.create(in_review, over=[State.REJECTED])
    return in_review


def _changes_are_refused(world: Recorder) -> None:
    """At once, and after a lost answer, so that a person discards it. And one that somebody else made is deleted."""
    number = world.take_in()
    event = change_key_link(number)
    world.prepare(event)
    path, body = event.path(world.stack), event.body
    assert isinstance(body, dict)
    assert world._request(world.tenant, "PUT", path, {**body, "internal_id": 5}) == 422
    world.inject(LOST, event.writes)
    world.send(event)
    world.stack.revio.key_links.clear()
    for _ in range(3):
        world.pass_time(60)
    (in_review,) = [one for one in world.operations() if one.state == "needs_review"]
    resolve = f"/operations/{in_review.operation_id}/resolve"
    assert world._request(world.tenant, "POST", resolve, {"action": "discard"}) == 200
    theirs = world.stack.revio.account.add_key_link(4, 2, 1015, "somebody else's")["integration_key_link_id"]
    assert world._request(world.tenant, "DELETE", f"/key-links/{theirs}", None) == 204


def _is_notified(world: Recorder) -> None:
    """First it works the second time, then the receiver says that it is gone for good."""

    def as_webhook_tenant(stack: Stack, document: dict[str, Any]) -> None:
        document["webhook"] = json.loads(stack.webhook_tenant())["webhook"]

    world.take_in(as_webhook_tenant)
    world.stack.receiver.fail(Kind.TOO_MANY)
    for number, status in ((120, None), (121, 410), (122, 410)):
        world.stack.receiver.refuses_with = status
        event = create_site(number)
        world.stack.illu.fail(Kind.TOO_MANY)
        world.send(event)
        for _ in range(4):
            world.pass_time(60)


def _is_handed_over(world: Recorder) -> None:
    """Events that are accepted, their webhooks, a job whose site has ended, and a person's retries, of any flow."""

    def as_webhook_tenant(stack: Stack, document: dict[str, Any]) -> None:
        document["webhook"] = json.loads(stack.webhook_tenant())["webhook"]

    world.take_in(as_webhook_tenant)
    for number, make in enumerate(KINDS, 400):
        event = make(number)
        world.prepare(event)
        world._request(world.tenant, event.method, event.path(world.stack), event.body, later=True)
        world.pass_time(60)
    world.stack.illu.fail(Kind.TOO_MANY)
    for event in (create_site(171), create_job(171)):  # the job waits for the site, and is not due yet when that is
        assert world._request(world.tenant, event.method, event.path(world.stack), event.body) == 202
        world.pass_time(20, deliver=False)
    world.stack.deliver_due()
    of_each_function = {flow.function: flow.name for flow in flows().values()}
    for flow in of_each_function.values():
        in_review = _in_review(world, flow)
        path = f"/operations/{in_review.operation_id}/resolve"
        assert world._request(world.tenant, "POST", path, {"action": "retry"}) == 200


def _refuses_sign_in(world: Recorder) -> None:
    for vendor, member in (("izzitup", "password"), ("egito", "password"), ("illu", "api_key"), ("revio", "password")):

        def wrong(_: Stack, document: dict[str, Any], vendor: str = vendor, member: str = member) -> None:
            document[vendor][member] = "another-password"

        world.take_in(wrong)
        events = {"izzitup": update_status, "egito": save_prospect, "illu": create_site, "revio": KINDS[3]}
        event = events[vendor](130)
        event.arrange(world.stack)
        world.send(event)
        world.pass_time(60)
        assert any(one.state == "waiting" for one in world.operations())


def _has_no_settings(world: Recorder) -> None:
    """Events that are known already are notified all the same."""
    world.take_in(lambda _, document: document.clear())
    for event in (create_site(150), update_status(150)):
        assert world._request(world.tenant, event.method, event.path(world.stack), event.body) == 503


def _gets_a_new_token(world: Recorder) -> None:
    world.take_in()
    world.play(save_prospect(140), lost=False)
    before = len(world.stack.egito.token_requests)
    world.pass_time(24 * 3600)
    world.play(save_prospect(141), lost=False)
    assert len(world.stack.egito.token_requests) > before


def _deletes_a_linked_record(world: Recorder) -> None:
    tenant = world.tenant
    body = {"external_id": "A-1", "fields": {"lastName": "Lis"}}
    assert world._request(tenant, "POST", "/records/Contact", body) == 201
    record = world.stack.egito.records["Contact"][-1]["id"]
    assert world._request(tenant, "DELETE", f"/records/Contact/{record}", None) == 204


def _ends_a_quarantine(world: Recorder) -> None:
    world.take_in()
    assert (
        world._request(world.tenant, "POST", "/in/{tenant}/hubspot", [{"type": "company", "hs_object_id": "1"}]) == 200
    )
    (bad,) = world.answer(world.tenant, "GET", "/requests").json()["requests"]
    assert world._request(world.tenant, "POST", f"/requests/{bad['id']}/discard", None) == 200


def _reaches_every_flow(world: Recorder) -> None:
    events: dict[str, dict[str, object]] = {
        "create_job": {"ticket_id": "T-1", "customer_id": "C-1", "name": "Meter"},
        "create_key_link": {"system": "SALESFORCE", "entity_type": "CUSTOMER", "internal_id": 1, "external_id": "X"},
        "status_update": {"service": "1", "status": "outage", "occurred_at": "2026-11-30T08:00:00Z"},
    }
    routes = [
        {"when": event, "flow": event, "version": "1", "expression": event}  # each event is a member of its own
        for event in events
    ]
    world.take_in(lambda _, document: document["sources"]["hubspot"].update(events=routes))
    body = [{flow: event} for flow, event in events.items()]
    assert world.answer(world.tenant, "POST", "/in/{tenant}/hubspot", body).json()["stored"] == len(events)


def _comes_again_changed(world: Recorder) -> None:
    """By each way: by the flow's own route, and from a source. The list shows both."""
    site = {"customer_id": "C-1", "name": "Shop", "latitude": 1.0, "longitude": 35.0, "address": "Moi Ave 12"}
    company = {"type": "company", "hs_object_id": "C-2", **{name: str(value) for name, value in site.items()}}
    world.take_in()
    for address in ("Moi Ave 12", "Moi Ave 13"):
        world._request(world.tenant, "POST", "/sites", site | {"address": address})
        world._request(world.tenant, "POST", "/in/{tenant}/hubspot", [company | {"address": address}])
    listed = world.answer(world.tenant, "GET", "/operations?changed=true").json()["operations"]
    assert sorted(one["event_key"] for one in listed) == ["C-1", "C-2"]


# ---------------------------------------------------------------------- what is granted


def granted() -> set[Permission]:
    return {(function, action, on) for function in FUNCTIONS for action, on in permissions(function)}


def lambdas_own() -> set[Permission]:
    """Lambda acts in a function's name: it polls its queue, and writes its log."""
    found = set()
    group = TEMPLATE_SOURCE["Globals"]["Function"]["LoggingConfig"]["LogGroup"]["Ref"]
    for function, properties in FUNCTIONS.items():
        assert "LoggingConfig" not in properties
        writes = ("CreateLogGroup", "CreateLogStream", "PutLogEvents")  # the first if the group is missing
        found |= {(function, f"logs:{action}", group) for action in writes}
        for source in properties["Events"].values():
            if source["Type"] == "SQS":
                queue = source["Properties"]["Queue"]["Fn::GetAtt"][0]
                actions = ("ReceiveMessage", "DeleteMessage", "GetQueueAttributes")
                found |= {(function, f"sqs:{action}", queue) for action in actions}
    return found


# ---------------------------------------------------------------------- the test


def test_all_that_is_asked_for_and_nothing_else_is_granted_and_listed_in_the_docs() -> None:
    """One test, because all of it is about one long recording."""
    asked, by_lambda, grants = asked_for(), lambdas_own(), granted()
    assert sorted((asked | by_lambda) - grants) == [], "asked for, and not granted"
    assert sorted(grants - asked - by_lambda) == [], "granted, and not asked for"
    before, rest = DOCUMENT.read_text().split(MARKERS[0])
    _, after = rest.split(MARKERS[1])
    wanted = f"{before}{MARKERS[0]}{table(asked, by_lambda)}{MARKERS[1]}{after}"
    if REWRITE:
        DOCUMENT.write_text(wanted)
    assert DOCUMENT.read_text() == wanted, "run `make permissions`"


def table(asked: set[Permission], lambdas_own: set[Permission]) -> str:
    lines = ["| function | actions | on | asked by |", "|---|---|---|---|"]
    for by, those in (("its code", asked), ("Lambda", lambdas_own)):
        rows: dict[tuple[str, str], list[str]] = defaultdict(list)
        for function, action, on in sorted(those):
            rows[function, on].append(f"`{action}`")
        lines += [f"| {function} | {', '.join(actions)} | {on} | {by} |" for (function, on), actions in rows.items()]
    lines[2:] = sorted(lines[2:])
    return "\n".join(lines) + "\n"

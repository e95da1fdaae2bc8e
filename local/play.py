"""The demo's steps: what is sent, what must come back, and what the vendor must hold then."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import requests

from local.events import load_event
from local.stack import CLIENT, CLUB, TOLD_KEY, UPYA_KEY, Stack
from local.vendors.alterations import ALTERATIONS
from local.vendors.connector import Answer, Connector, Person
from local.vendors.izzitup import FAILURES
from local.vendors.simulator import Kind

TIMEOUT = 30
_DECIDES = frozenset({"operations:read", "operations:resolve", "operations:payload"})


@dataclass(frozen=True)
class Step:
    """One thing that was sent, what came back, what the vendor then holds, and whether all that is right."""

    what: str
    sent: str
    status: int
    answer: str
    held: str
    right: bool


@dataclass(frozen=True)
class Chapter:
    """A flow at work. A None among its steps is a pause for the eye."""

    title: str
    steps: Callable[[], Iterator[Step | None]]


class Play:
    """Each step is checked against what the vendor holds."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._customer: dict[str, Any] = _body("create_site", "new")

    def chapters(self) -> list[Chapter]:
        return [
            Chapter("create_site: a new customer becomes a site at illu", self._sites),
            Chapter("create_job: a ticket becomes a job at its customer's site", self._jobs),
            Chapter("key_link: an account in another system becomes a key link at Rev.io", self._key_links),
            Chapter("status_update: a service is impaired, down or back on IzzitUp's status page", self._statuses),
            Chapter("connector_receiver: a day at a club, from the InTouch Connector into Egito", self._day_at_a_club),
            Chapter("webhook: what was answered 202 is told to the tenant's own system", self._webhooks),
            Chapter("operations: what became of all that", self._operations),
        ]

    # ------------------------------------------------------------------ create_site

    def _sites(self) -> Iterator[Step | None]:
        new = self._call("POST", "/sites", self._customer)
        site_id = new.json().get("site_id")
        yield self._at_illu("A new customer", "POST /sites C-1001", new, new.status_code == 201, sites=1)
        again = self._call("POST", "/sites", self._customer)
        same = again.status_code == 200 and again.json()["site_id"] == site_id
        yield self._at_illu("The same event once more", "POST /sites C-1001", again, same, sites=1)
        changed = self._call("POST", "/sites", {**self._customer, "address": "Moi Ave 13"})
        warned = changed.status_code == 200 and "warnings" in changed.json()
        yield self._at_illu("The same event, changed", "POST /sites C-1001", changed, warned, sites=1)
        yield None
        yield self._linked("Which site is this customer?", "/links/crm/customer/C-1001", str(site_id))
        yield self._linked("Which customer is this site?", f"/links/illu/site/{site_id}", "C-1001")
        yield None
        invalid = self._call("POST", "/sites", _body("create_site", "invalid"))
        named = _fields(invalid) == {"customer_id", "latitude", "longitude", "address", "adress"}
        yield self._at_illu(
            "Five mistakes at once", "POST /sites", invalid, invalid.status_code == 422 and named, sites=1
        )
        for what, key, status in (
            ("No key", None, 401),
            ("A wrong key", "crmb_not-a-key", 401),
            ("A key without the scope", self._stack.add_key("demo", frozenset({"operations:read"}), "no scope"), 403),
        ):
            answer = self._call("POST", "/sites", {**self._customer, "customer_id": "C-1002"}, key=key)
            yield self._at_illu(what, "POST /sites C-1002", answer, answer.status_code == status, sites=1)
        yield None
        for number, kind, what in (
            (2, Kind.CLOSE_AFTER, "illu does it, but its answer is lost"),
            (3, Kind.UNAVAILABLE, "illu is down (503)"),
        ):
            self._stack.illu.fail(kind)
            customer = {**self._customer, "customer_id": f"C-{1008 + number}", "name": f"Shop {number}, Eldoret"}
            accepted = self._call("POST", "/sites", customer)
            sent = f"POST /sites {customer['customer_id']}"
            before = number if kind is Kind.CLOSE_AFTER else number - 1
            yield self._at_illu(what, sent, accepted, accepted.status_code == 202, sites=before)
            healed = self._wait_until_settled(accepted)
            succeeded = healed.json()["state"] == "succeeded"
            yield self._at_illu("A minute later", "GET /operations/{id}", healed, succeeded, sites=number)
        yield None
        yield from self._altered_site()

    def _altered_site(self) -> Iterator[Step | None]:
        """illu stores another name than it was sent and its response is lost, so a person decides."""
        illu = self._stack.illu
        illu.alterations = (ALTERATIONS["cut at an emoji"],)
        illu.fail(Kind.CLOSE_AFTER)
        customer = {**self._customer, "customer_id": "C-1012", "name": "Shop \N{CONVENIENCE STORE} 4, Eldoret"}
        accepted = self._call("POST", "/sites", customer)
        illu.alterations = ()
        what = "illu cuts the name at an emoji, and its answer is lost"
        yield self._at_illu(what, "POST /sites C-1012", accepted, accepted.status_code == 202, sites=4)
        in_review = self._wait_until_settled(accepted).json()
        seen = self._call(
            "GET", accepted.headers["Location"], key=self._stack.add_key("demo", _DECIDES, "Ada, support")
        )
        candidates = [f"{one['id']} {one['name'].strip()}" for one in seen.json()["candidates"]]
        right = in_review["state"] == "needs_review" and candidates == ["4714 Shop"]
        told = "\n".join([f"{seen.json()['state']}: {in_review['attempts'][-1]['reason']}", *candidates])
        yield Step(
            "Nothing is sent: a person sees the candidate", "GET /operations/{id}", 200, told, "sites 4, jobs 0", right
        )
        path = f"{accepted.headers['Location']}/resolve"
        linked = self._call(
            "POST", path, {"action": "link", "id": seen.json()["candidates"][0]["id"], "confirmed": True}
        )
        right = linked.json().get("state") == "succeeded"
        yield self._at_illu("and links it", "POST /operations/{id}/resolve", linked, right, sites=4)

    # ------------------------------------------------------------------ create_job

    def _jobs(self) -> Iterator[Step | None]:
        for what, case, status, sites, jobs in (
            ("A ticket of the first customer", "new", 201, 4, 1),
            ("The same ticket once more", "repeated", 200, 4, 1),
            ("A ticket with mistakes", "invalid", 422, 4, 1),
            ("A ticket of a customer without a site", "no_site", 409, 4, 1),
            ("The same with the site's details", "with_site", 201, 5, 2),
        ):
            ticket = _body("create_job", case)
            answer = self._call("POST", "/jobs", ticket)
            sent = f"POST /jobs {ticket['ticket_id']}".strip()
            yield self._at_illu(what, sent, answer, answer.status_code == status, sites=sites, jobs=jobs)
        yield self._linked("Which job is this ticket?", "/links/crm/ticket/T-501", "801")
        yield None
        for what, path, flow, jobs in (
            ("An Upya client as it comes", "/sites", "create_site", 2),
            ("An Upya ticket as it comes", "/jobs", "create_job", 3),
        ):
            answer = self._call("POST", path, _body(flow, "upya"), key=UPYA_KEY)
            yield self._at_illu(what, f"POST {path}", answer, answer.status_code == 201, sites=6, jobs=jobs)
        broken = {name: value for name, value in _body("create_job", "upya").items() if name != "title"}
        answer = self._call("POST", "/jobs", {**broken, "ticketId": "65f0c1a3"}, key=UPYA_KEY)
        right = answer.status_code == 422 and "title" not in answer.json()["mapping"]["received"]
        yield self._at_illu("An Upya ticket without a title", "POST /jobs", answer, right, sites=6, jobs=3)

    # ------------------------------------------------------------------ key_link

    def _key_links(self) -> Iterator[Step | None]:
        names = self._call("GET", "/key-links/systems")
        there = "SALESFORCE" in [system["name"] for system in names.json()["systems"]]
        yield self._at_revio("Which systems does Rev.io know?", "GET /key-links/systems", names, there, 0)
        for what, case, status, held in (
            ("A Salesforce account is customer 1015", "new", 201, 1),
            ("The same once more, names in another case", "repeated", 200, 1),
            ("A system that Rev.io does not have", "unknown_name", 422, 1),
            ("A customer that Rev.io does not have", "unknown_record", 422, 1),
            ("Four mistakes at once", "invalid", 422, 1),
        ):
            answer = self._call("POST", "/key-links", _body("key_link", case))
            yield self._at_revio(what, "POST /key-links", answer, answer.status_code == status, held)
        self._stack.revio.account.add_key_link(4, 2, 2044, "001XX0000NOTOURS")
        theirs = self._call("POST", "/key-links", _theirs())
        found = theirs.status_code == 200 and theirs.json()["id"] == 78
        yield self._at_revio("One that somebody made at Rev.io by hand", "POST /key-links", theirs, found, 2)
        yield None
        self._stack.revio.fail(Kind.CLOSE_AFTER)
        accepted = self._call("POST", "/key-links", {**_theirs(), "internal_id": 2045})
        lost = "Rev.io does it, but its answer is lost"
        yield self._at_revio(lost, "POST /key-links", accepted, accepted.status_code == 202, 3)
        healed = self._wait_until_settled(accepted)
        succeeded = healed.json()["state"] == "succeeded"
        yield self._at_revio("A minute later", "GET /operations/{id}", healed, succeeded, 3)
        yield None
        yield self._linked("Which customer is this account?", "/links/salesforce/customer/001XX0000ABCDEF", "1015")
        changed = self._call("PUT", "/key-links/77", _body("key_link", "change"))
        right = changed.status_code == 200 and self._stack.revio.key_links[0]["internal_id"] == 1016
        yield self._at_revio("It is customer 1016 after all", "PUT /key-links/77", changed, right, 3)
        yield self._linked("The links follow", "/links/salesforce/customer/001XX0000ABCDEF", "1016")
        for what in ("It is deleted", "It is deleted once more"):
            gone = self._call("DELETE", "/key-links/77")
            yield self._at_revio(what, "DELETE /key-links/77", gone, gone.status_code == 204, 2)

    # ------------------------------------------------------------------ status_update

    def _statuses(self) -> Iterator[Step | None]:
        listed = self._call("GET", "/services")
        shown = [service["key"] for service in listed.json()["services"]]
        yield self._at_izzitup("What does the page show?", "GET /services", listed, shown == ["WEB", "MAIL", "BILLING"])
        for what, case, ignored, status in (
            ("Mail is down, by its key", "by_key", False, "7"),
            ("The same event once more", "repeated", False, "7"),
            ("Late news from an hour before", "older", True, "7"),
            ("It is only impaired, by its id", "by_id", False, "6"),
            ("It is back, by its name", "by_name", False, "5"),
        ):
            answer = self._put(case)
            right = answer.status_code == 200 and ("ignored" in answer.json()) is ignored
            right = right and self._stack.izzitup.status_of("2") == status
            yield self._at_izzitup(what, _line(case), answer, right)
        invalid = self._put("invalid")
        right = invalid.status_code == 422 and _fields(invalid) == {"status", "occurred_at", "service"}
        yield self._at_izzitup("Three mistakes at once", _line("invalid"), invalid, right)
        yield None
        for message, expected in _REFUSALS:
            self._provoke(message)
            service = "99" if message == "Service not found" else "WEB"
            answer = self._set(service)
            right = answer.status_code == expected
            yield self._at_izzitup(f"IzzitUp says: {message}", f"PUT /services/{service}/status", answer, right)
            self._stack.izzitup.allowed.add("ops-bot")
        failed = self._stack.izzitup.failed_sign_ins
        answer = self._set("BILLING")
        right = answer.status_code == 202 and self._stack.izzitup.failed_sign_ins == failed == 1
        yield self._at_izzitup(
            "Another event meanwhile: nobody signs in", "PUT /services/BILLING/status", answer, right
        )
        self._stack.izzitup.users["ops-bot"] = "izzitup-demo-password-2"
        self._stack.put_secret("demo", self._stack.demo_tenant())
        healed = self._wait_until_settled(answer)
        right = healed.json()["state"] == "succeeded" and self._stack.izzitup.status_of("3") == "7"
        yield self._at_izzitup("The secret was changed, a minute later", "GET /operations/{id}", healed, right)

    def _provoke(self, message: str) -> None:
        """Let IzzitUp really refuse where it can be brought to it; what the bridge never sends, it has to make up."""
        match message:
            case "Service not found":
                pass
            case "Sign in failed":
                self._stack.izzitup.users["ops-bot"] = "izzitup-demo-password-1"
            case "Not allowed":
                self._stack.izzitup.allowed.clear()
            case _:
                self._stack.izzitup.failures.append(next(known for known in FAILURES if known.startswith(message)))

    def _set(self, service: str) -> requests.Response:
        self._stack.move_clock(1)  # instead of waiting a second for the next turn
        return self._call("PUT", f"/services/{service}/status", {"status": "outage"})

    def _put(self, case: str) -> requests.Response:
        self._stack.move_clock(1)
        event = load_event("status_update", case)
        return self._call("PUT", event["rawPath"], json.loads(event["body"]))

    # ------------------------------------------------------------------ connector_receiver

    def _day_at_a_club(self) -> Iterator[Step | None]:
        def sent(what: str, person: Person, result: str, *held: str, by_id: bool = True) -> Step:
            known, path = person.record_id, "members" if "MEMBER" in person.fields["userType"] else "prospects"
            answer = connector.save(person, by_id=by_id)
            right = answer.result == result and answer.record_id in (known or answer.record_id, None)
            verb = f"PUT …/{path}/{{id}}" if known and by_id else f"POST …/{path}"
            return self._at_egito(what, verb, answer, right, held)

        egito, url = self._stack.egito, self._stack.url
        connector = Connector(
            url, CLUB, user=CLIENT, password=self._stack.api_key, attempts=1, sends_unknown_owner=True
        )
        staff = [f"{one.name} {one.id}" for one in connector.fetch_staff()]
        yield Step("Who works here?", "GET …/staff", 200, "\n".join(staff), "", "Maja Nowak 7" in staff)
        sources = [f"{one.name} {one.id}" for one in connector.fetch_lead_sources()]
        right = sources == ["Website 1", "Walk-in 2"]
        yield Step("Where do leads come from?", "GET …/lead-sources", 200, "\n".join(sources), "", right)
        facebook = connector.lead_source("Facebook")
        right = "Facebook" in [entry["name"] for entry in egito.dictionaries["leadSource"]]
        yield Step("A new one, made at Egito", "POST …/lead-sources", 201, f"Facebook {facebook}", "", right)
        yield None
        ada, jan = _person("prospect", "Walk-in"), _person("prospect_unknown_owner", "Facebook")
        yield sent("A prospect, whose owner is Maja", ada, "INFO", "Ada prospect, owner 7")
        people = ["Ada prospect, owner 7", "Jan prospect"]
        yield sent("One whose owner nobody knows", jan, "WARNING", *people)
        yield sent("Ada again, as if for the first time", ada, "INFO", *people, by_id=False)
        ada.uuid, uuid = "", ada.uuid
        yield sent("And without any id: known by her name", ada, "INFO", *people, by_id=False)
        ada.uuid = uuid
        ada.fields["mobile"] = "+48 600 100 201"
        yield sent("Ada has another number", ada, "INFO", *people)
        ada.fields |= {"userType": "MEMBER", "trialStartDate": "", "trialEndDate": ""}
        people = ["Ada member, owner 7", "Jan prospect"]
        egito.revoke()
        yield sent("Now a member. (The token was revoked.)", ada, "INFO", *people)
        ada.fields["userType"] = "PROSPECT"
        yield sent("Old news: Ada is a prospect", ada, "WARNING", *people)
        ada.fields |= {"userType": "EX-MEMBER", "userStatus": "INACTIVE"}
        people = ["Ada ex-member, owner 7", "Jan prospect"]
        yield sent("Her membership has ended", ada, "INFO", *people)
        ada.fields |= {"birthdate": "12.4.1990", "gender": "female"}
        yield sent("Two mistakes", ada, "ERROR", *people)
        yield None
        egito.fail(Kind.CLOSE_AFTER)
        zoe = _person("prospect_unknown_owner", "Website")
        zoe.uuid, zoe.owner_email = "5f1d2c9e-0003", "ola@club.example"
        zoe.fields |= {"firstname": "Zoë", "lastname": "O'Hara", "mobile": "600 500 500"}
        people.append("Zoë prospect, owner 9")
        yield sent("Egito saves Zoë, but its answer is lost", zoe, "WARNING", *people)
        listed = self._call("GET", "/operations?state=unconfirmed").json()["operations"]
        accepted = next(one for one in listed if one["flow"] == "save_person")
        healed = self._settled(f"/operations/{accepted['operation_id']}")
        right = healed.json()["state"] == "succeeded"
        told = Answer(healed.status_code, "INFO", _told(healed))
        yield self._at_egito("Minutes later", "GET /operations/{id}", told, right, people)
        yield sent("Zoë once more", zoe, "INFO", *people)
        yield None
        check = self._call("GET", f"/connector/clubs/{CLUB}/check?prospect={egito.records['Contact'][0]['id']}")
        missing = check.json()["maps"]["prospect"]["missing"]
        right = check.status_code == 200 and missing == []
        answer = f"fields that Egito lacks: {', '.join(missing) or 'none'}"
        yield Step("Does the map fit Egito's records?", "GET …/check", check.status_code, answer, "", right)

    def _at_egito(self, what: str, sent: str, answer: Answer, right: bool, expected: Sequence[str]) -> Step:
        held = [
            f"{one['firstName']} {str(one['type']).lower()}" + (f", owner {one['ownerId']}" if one["ownerId"] else "")
            for one in self._stack.egito.records["Contact"]
        ]
        told = f"{answer.result}: {answer.message}" if answer.record_id or answer.result == "ERROR" else answer.message
        return Step(what, sent, answer.status, told, "\n".join(held), right and held == list(expected))

    # ------------------------------------------------------------------ webhook

    def _webhooks(self) -> Iterator[Step | None]:
        illu, receiver = self._stack.illu, self._stack.receiver
        told: list[str] = []

        def accepted(what: str, customer_id: str) -> tuple[Step, requests.Response]:
            customer = {**self._customer, "customer_id": customer_id, "latitude": -3.3869}  # of another tenant
            answer = self._call("POST", "/sites", customer, key=TOLD_KEY)
            right = answer.status_code == 202
            return self._at_receiver(what, f"POST /sites {customer_id}", answer, right, told), answer

        def later(what: str, answer: requests.Response, hours: int = 0) -> Step:
            settled = self._settled(answer.headers["Location"], key=TOLD_KEY)
            for seconds in (60, *[3600] * hours):
                self._stack.move_clock(seconds)
                self._stack.deliver_due()
            right = settled.json()["state"] == "succeeded"
            return self._at_receiver(what, "GET /operations/{id}", settled, right, told)

        illu.fail(Kind.UNAVAILABLE)
        step, answer = accepted("illu is down, so the answer is 202", "C-2001")
        yield step
        told.append("C-2001 succeeded")
        yield later("Minutes later: done, and told", answer)
        yield None
        illu.fail(Kind.CLOSE_AFTER)
        receiver.fail(Kind.ERROR_BEFORE, times=4)
        step, answer = accepted("An answer is lost, the receiver is down", "C-2002")
        yield step
        told.append("C-2002 succeeded")
        yield later("Hours later: told as well, and once", answer, hours=4)
        yield None
        receiver.refuses_with = HTTPStatus.GONE
        illu.fail(Kind.UNAVAILABLE)
        step, answer = accepted("Now the receiver wants no more (410)", "C-2003")
        yield step
        yield later("It is left alone", answer, hours=4)
        refused = self._call("GET", "/operations?flow=webhook&state=rejected", key=TOLD_KEY)
        right = len(refused.json()["operations"]) == 1 and receiver.seen[-1].status == HTTPStatus.GONE
        sent = "GET /operations?flow=webhook&state=rejected"
        yield self._at_receiver("What could not be told?", sent, refused, right, told)

    def _at_receiver(
        self, what: str, sent: str, answer: requests.Response, right: bool, expected: Sequence[str]
    ) -> Step:
        news = [told["data"] for told in self._stack.receiver.told.values()]
        held = [f"{one['event_key']} {one['state']}" for one in news]
        return Step(what, sent, answer.status_code, _told(answer), "\n".join(held), right and held == list(expected))

    # ------------------------------------------------------------------ operations

    def _operations(self) -> Iterator[Step | None]:
        for state, count in (("needs_review", 0), ("waiting", 0), ("rejected", 8)):
            listed = self._call("GET", f"/operations?state={state}")
            right = listed.status_code == 200 and len(listed.json()["operations"]) == count
            sent = f"GET /operations?state={state}"
            yield Step(f"Which operations are `{state}`?", sent, listed.status_code, _told(listed), "", right)

    # ------------------------------------------------------------------

    def _linked(self, what: str, path: str, expected: str) -> Step:
        answer = self._call("GET", path)
        ids = [link["id"] for link in answer.json().get("links", [])]
        return Step(what, f"GET {path}", answer.status_code, _told(answer), "", expected in ids)

    def _at_illu(
        self, what: str, sent: str, answer: requests.Response, right: bool, *, sites: int, jobs: int = 0
    ) -> Step:
        held = len(self._stack.illu.sites), len(self._stack.illu.jobs)
        told = f"sites {held[0]}, jobs {held[1]}"
        return Step(what, sent, answer.status_code, _told(answer), told, right and held == (sites, jobs))

    def _at_revio(self, what: str, sent: str, answer: requests.Response, right: bool, expected: int) -> Step:
        held = len(self._stack.revio.key_links)
        return Step(what, sent, answer.status_code, _told(answer), f"key links {held}", right and held == expected)

    def _at_izzitup(self, what: str, sent: str, answer: requests.Response, right: bool) -> Step:
        bad = {"6": "impaired", "7": "down"}
        held = [f"{s['key']} {bad[s['status']]}" for s in self._stack.izzitup.services if s["status"] in bad]
        return Step(what, sent, answer.status_code, _told(answer), ", ".join(held) or "all up", right)

    def _wait_until_settled(self, accepted: requests.Response) -> requests.Response:
        """Move the clock on, a minute at a time, and let the dispatcher and the queues do their work."""
        return self._settled(accepted.headers["Location"])

    def _settled(self, location: str, key: str = "") -> requests.Response:
        for _ in range(5):
            self._stack.move_clock(60)
            self._stack.deliver_due()
            answer = self._call("GET", location, key=key)
            if answer.json()["state"] in ("succeeded", "rejected", "needs_review"):
                break
        return answer

    def _call(self, method: str, path: str, body: object = None, key: str | None = "") -> requests.Response:
        """`key` "" is the tenant's own, None is none at all."""
        headers = {} if key is None else {"Authorization": f"Bearer {key or self._stack.api_key}"}
        return requests.request(method, self._stack.url + path, json=body, headers=headers, timeout=TIMEOUT)


_REFUSALS = (
    ("Service not found", 404),
    ("Status not found", 422),
    ("Status not allowed", 422),
    ("Incomplete request", 502),
    ("Unknown action", 502),
    ("Not allowed", 202),
    ("Sign in failed", 202),
)


def _body(flow: str, case: str) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(load_event(flow, case)["body"])
    return body


def _person(case: str, lead_source: str) -> Person:
    fields = _body("connector_receiver", case)
    return Person(fields.pop("uuid"), fields, owner_email=fields.pop("leadOwner"), lead_source_name=lead_source)


def _theirs() -> dict[str, object]:
    return {**_body("key_link", "new"), "internal_id": 2044, "external_id": "001XX0000NOTOURS"}


def _line(case: str) -> str:
    event = load_event("status_update", case)
    return f"PUT {event['rawPath']}"


def _fields(answer: requests.Response) -> set[str]:
    return {error["field"] for error in answer.json().get("errors", [])}


def _told(answer: requests.Response) -> str:
    """What is worth reading in an answer."""
    if answer.status_code == HTTPStatus.NO_CONTENT:
        return ""
    body: Mapping[str, Any] = answer.json()
    if "errors" in body:
        return "\n".join(f"{error['field']}: {error['message']}" for error in body["errors"])
    if "title" in body:
        return str(body["title"] if body["status"] in (401, 403) else body["detail"])
    if "links" in body and "state" not in body:
        return ", ".join(f"{link['system']} {link['entity']} {link['id']}" for link in body["links"])
    if "attempts" in body:
        return f"{body['state']} ({', then '.join(attempt['event'] for attempt in body['attempts'])})"
    if "systems" in body:
        return ", ".join(f"{system['name']} {system['id']}" for system in body["systems"])
    if "services" in body:
        return ", ".join(f"{service['key']} {service['status_name']}" for service in body["services"])
    if "operations" in body:
        flows = Counter(operation["flow"] for operation in body["operations"])
        return "\n".join(f"{flow}: {count}" for flow, count in sorted(flows.items())) or "nothing"
    if "entity_type" in body:
        return f"id {body['id']}: {body['system']} {body['entity_type']} {body['internal_id']}"
    names = ("job_id", "site_id", "state", "reason")
    told = [f"{name} {body[name]}" for name in names if name in body]
    if "ignored" in body:
        return f"ignored: {body['ignored']}"
    if "status_name" in body:
        return f"{body.get('name', 'service ' + body['id'])} {body['status_name']}"
    return "\n".join(told + body.get("warnings", []))

"""IzzitUp's Services API, as its manual documents it: one path that lists services or sets the status of one.

https://support.lewe.com/docs/izzitup-manual/editor-guide/rest-api/

Documented: the path, the members of a call, of a reply and of a service, the seven failures, the three statuses that
may be set, and that a reply repeats the call with its password.

Ours, because nothing is documented: the order of the checks, that the list comes in the same envelope with an empty
message, that the body decides and not the method, that hidden services can be set, that the server's clock is UTC, the
ids of the other statuses, and everything that is a switch of the simulator.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from werkzeug.wrappers import Request, Response

from local.vendors.simulator import Example, Simulator

FAILURES = {
    "Incomplete request": "Error",
    "Unknown action": "Error",
    "Sign in failed": "Error",
    "Not allowed": "Error",
    "Service not found": "Warning",
    "Status not found": "Warning",
    "Status not allowed. Must be 5 (Operational), 6 (Impaired) or 7 (Outage).": "Warning",
}
"""The result that goes with each message, in the order in which the simulator checks."""

_STATUSES = {
    "1": "To Do",
    "2": "Scheduled",
    "3": "In Progress",
    "4": "Done",
    "5": "Operational",
    "6": "Impaired",
    "7": "Outage",
    "8": "Closed",
}
_ALLOWED_STATUSES = {"5", "6", "7"}
_MEMBERS = ("action", "service", "status", "user", "pwd")


def service(service_id: str, name: str, key: str, *, status: str = "5", hidden: str = "0") -> dict[str, str]:
    """A service with the documented members; the vendor writes all of them as strings."""
    return {
        "id": service_id,
        "name": name,
        "key": key,
        "description": "",
        "url": f"https://{key.lower()}.example.com/",
        "curl": "",
        "status": status,
        "hidden": hidden,
        "created": "2024-01-01 08:00:00",
        "updated": "2024-01-01 08:00:00",
    }


def _demo_services() -> list[dict[str, str]]:
    return [
        service("1", "Website", "WEB"),
        service("2", "Mail", "MAIL"),
        service("3", "Billing", "BILLING"),
        service("4", "Backup", "BACKUP", hidden="1"),
    ]


@dataclass
class IzzitUpSimulator(Simulator):
    """The fields from `locks_after` on are switches for what is unknown about the vendor, except `failures`."""

    name: str = "izzitup"
    path: str = "/izzitup/public"
    users: dict[str, str] = field(default_factory=lambda: {"ops-bot": "izzitup-demo-password"})
    """Passwords by user. `/_state` does not show them."""
    allowed: set[str] = field(default_factory=lambda: {"ops-bot"})
    """Users whose role may set a status."""
    services: list[dict[str, str]] = field(default_factory=_demo_services)
    failed_sign_ins: int = 0
    """Sign-ins that were tried and failed; one that `failures` ordered is not counted."""
    locks_after: int | None = None
    """After so many failed sign-ins all fail, with the right password too."""
    failures: list[str] = field(default_factory=list)
    """Messages of FAILURES that response the next calls with a body, whatever they ask; nothing is done then."""
    failure_status: int = 200
    """HTTP status of the documented failures."""
    list_shape: Literal["array", "object", "bare"] = "array"
    """`data` is an array, or an object by id; or there is no envelope, only the array."""
    lists_hidden: bool = True
    notice_first: bool = False
    """A call with a body gets 200 with a PHP notice that repeats that body, and then the JSON."""
    answers_without_data: bool = False
    """`data` is an empty string after a status was set, as it is after a failure."""

    @property
    def base_url(self) -> str:
        return self.url + self.path

    def respond(self, request: Request) -> Response:
        if request.path != f"{self.path}/api/services":
            return Response("Not Found", 404)
        return self._act(request) if request.get_data() else self._list(request)

    def held(self) -> dict[str, object]:
        return {"services": self.services}

    def blocks(self) -> dict[str, dict[str, object]]:
        (user, password), *_ = self.users.items()
        return {"izzitup": {"base_url": self.base_url, "user": user, "password": password}}

    def examples(self) -> Sequence[Example]:
        return (Example("Mail is down.", "PUT", "/services/MAIL/status", {"status": "outage"}),)

    def status_of(self, service_id: str) -> str:
        """Raises KeyError if there is no such service."""
        return {found["id"]: found["status"] for found in self.services}[service_id]

    def _list(self, request: Request) -> Response:
        listed = [found for found in self.services if self.lists_hidden or found["hidden"] == "0"]
        if self.list_shape == "bare":
            return _php_response(listed)
        data = {found["id"]: found for found in listed} if self.list_shape == "object" else listed
        return _php_response(_envelope(request, None, "Success", "", data))

    def _act(self, request: Request) -> Response:
        try:
            echo = json.loads(request.get_data())
        except ValueError:
            echo = None
        sent = echo if isinstance(echo, dict) else {}
        failure = self.failures.pop(0) if self.failures else self._failure(sent)
        if failure:
            body = _envelope(request, echo, FAILURES[failure], failure, "")
            response = _php_response(body, self.failure_status)
        else:
            changed = self._set_status(str(sent["service"]), str(sent["status"]))
            message = f"Status of Service {changed['name']} was set to {_STATUSES[changed['status']]}"
            data = "" if self.answers_without_data else changed
            response = _php_response(_envelope(request, echo, "Success", message, data))
        return _after_notice(request, response) if self.notice_first else response

    def _failure(self, sent: dict[str, object]) -> str | None:
        checks = zip(FAILURES, self._checks(sent), strict=True)
        return next((message for message, passed in checks if not passed), None)

    def _checks(self, sent: dict[str, object]) -> Iterator[bool]:
        """One for each of FAILURES. Whoever asks stops at the first that is not passed: the later ones rely on it."""
        yield all(sent.get(member) not in (None, "") for member in _MEMBERS)
        yield sent["action"] == "setstatus"
        yield self._signs_in(str(sent["user"]), sent["pwd"])
        yield str(sent["user"]) in self.allowed
        yield str(sent["service"]) in [found["id"] for found in self.services]
        yield str(sent["status"]) in _STATUSES
        yield str(sent["status"]) in _ALLOWED_STATUSES

    def _signs_in(self, user: str, password: object) -> bool:
        locked = self.locks_after is not None and self.failed_sign_ins >= self.locks_after
        if not locked and self.users.get(user) == password:
            return True
        self.failed_sign_ins += 1
        return False

    def _set_status(self, service_id: str, status: str) -> dict[str, str]:
        changed = next(found for found in self.services if found["id"] == service_id)
        changed["status"] = status
        changed["updated"] = datetime.fromtimestamp(self.clock(), UTC).strftime("%Y-%m-%d %H:%M:%S")
        return changed


def _envelope(request: Request, echo: object, result: str, message: str, data: object) -> dict[str, object]:
    return {"uri": request.path, "request": echo, "result": result, "message": message, "data": data}


def _php_response(body: object, status: int = 200) -> Response:
    """JSON as PHP writes it by default: no spaces, slashes and non-ASCII characters escaped."""
    text = json.dumps(body, separators=(",", ":")).replace("/", r"\/")
    return Response(text, status, mimetype="application/json")


def _after_notice(request: Request, response: Response) -> Response:
    """PHP has sent 200 and its default type by the time the notice is out."""
    notice = b"<br />\n<b>Notice</b>:  Trying to access array offset on " + request.get_data() + b"<br />\n"
    return Response(notice + response.get_data(), 200, mimetype="text/html")

"""IzzitUp (status page): https://support.lewe.com/docs/izzitup-manual/editor-guide/rest-api/

Its responses repeat the request, including the password, so nothing of a response is kept but the members named here.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from enum import IntEnum
from itertools import islice
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from crm_bridge.errors import (
    ContractBrokenError,
    NoSuchRecordError,
    NotDoneError,
    RefusedError,
    SignInPausedError,
    SignInRefusedError,
    VendorError,
)
from crm_bridge.outbound.findings import Finding
from crm_bridge.outbound.response import VendorResponse, basic, expect
from crm_bridge.outbound.transport import changing_nothing
from crm_bridge.outbound.vendor import Vendor
from crm_bridge.settings import LoginSecret, Prompt, Settings, VendorUrl

VENDOR = "IzzitUp"
PATH = "/api/services"
MAX_LIST = 2 * 1024 * 1024


class IzzitUpSettings(Settings):
    """How to reach a tenant's status page.

    Source: https://support.lewe.com/docs/izzitup-manual/editor-guide/rest-api/
    """

    model_config = ConfigDict(title="IzzitUp (status page)")
    block = "izzitup"

    base_url: Annotated[VendorUrl, Prompt("Address of the application, up to where /api begins")]
    """The address of the application, up to where `/api/services` begins; it often ends in `/public`."""
    user: Annotated[str, Field(min_length=1, max_length=200), Prompt("User")]
    """Of an account that may set a status and is used for nothing else: IzzitUp repeats the password in its
    responses."""
    password: Annotated[LoginSecret, Prompt("Password")]
    """Of the same account."""


class ServiceStatus(IntEnum):
    """The statuses that its API can set."""

    OPERATIONAL = 5
    IMPAIRED = 6
    OUTAGE = 7


class IzzitUpService(BaseModel):
    """A service as IzzitUp returns it: all members are text."""

    model_config = ConfigDict(frozen=True)

    id: Annotated[str, BeforeValidator(str)]
    name: str | None = None
    key: str | None = None
    description: str | None = None
    url: str | None = None
    curl: str | None = None
    status: Annotated[str, BeforeValidator(str)]
    hidden: Annotated[str, BeforeValidator(str)] = "0"
    created: str | None = None
    updated: str | None = None

    @property
    def status_name(self) -> str | None:
        """`operational`, `impaired` or `outage`; None for a status that the API cannot set."""
        return next((one.name.lower() for one in ServiceStatus if self.status == str(int(one))), None)


FAILURES: Mapping[tuple[str, str], type[VendorError]] = {
    ("Warning", "Service not found"): NoSuchRecordError,
    ("Warning", "Status not found"): RefusedError,
    ("Warning", "Status not allowed"): RefusedError,
    ("Error", "Incomplete request"): ContractBrokenError,  # it no longer takes what it is documented to take
    ("Error", "Unknown action"): ContractBrokenError,
    ("Error", "Sign in failed"): SignInPausedError,  # not tried again: the account might be locked
    ("Error", "Not allowed"): SignInRefusedError,  # the account signed in, and lacks the right
}
"""By `result` and how `message` begins. Source: the REST API page, "Error Messages"."""

_OBJECT = re.compile(r'\{[ \t\r\n]*"')
"""The start of an object with members. The braces of a page's styles and scripts do not count."""
MOST_TRIES = 50

_SERVICES = TypeAdapter(list[IzzitUpService])


class IzzitUp(Vendor[IzzitUpSettings]):
    """The services of one status page."""

    name = VENDOR
    shows_bodies = False

    def secrets(self) -> tuple[str, ...]:
        return (*super().secrets(), basic(self.settings.user, self.settings.password.get_secret_value()))

    def services(self) -> list[IzzitUpService]:
        """`GET /api/services` without a body and without a login: all services, which may include hidden ones.

        Source: the REST API page; the form of the list is not documented, so all likely ones are accepted.
        """
        with changing_nothing():
            parsed = _parsed(self.call("GET", PATH, max_response=MAX_LIST))
        data = parsed.get("data") if isinstance(parsed, dict) else parsed
        try:
            return _SERVICES.validate_python(list(data.values()) if isinstance(data, dict) else data)
        except ValidationError:
            raise ContractBrokenError("IzzitUp returned no list of services", vendor=VENDOR, status=200) from None

    def check(self) -> Iterator[Finding]:
        """Ask for the services. That needs no login, and every call that does changes a status."""
        yield self.asked(
            "services",
            lambda page: page.services(),
            lambda services: f"{len(services)} services; the login is only tried with the first change",
        )

    def set_status(self, service_id: str, status: ServiceStatus) -> IzzitUpService | None:
        """`POST /api/services` with the action `setstatus`: the service afterwards, if the response has it.

        Source: the REST API page
        """
        settings = self.settings
        action = {
            "action": "setstatus",
            "service": int(service_id) if service_id.isdecimal() else service_id,
            "status": int(status),
            "user": settings.user,
            "pwd": settings.password.get_secret_value(),
        }
        parsed = _parsed(self.call("POST", PATH, action, max_response=MAX_LIST))
        if not isinstance(parsed, dict) or parsed.get("result") != "Success":
            raise ContractBrokenError("IzzitUp's response is neither a success nor a documented failure", vendor=VENDOR)
        try:
            return IzzitUpService.model_validate(parsed.get("data"))
        except ValidationError:  # the change itself was confirmed
            return None


def _parsed(response: VendorResponse) -> Any:
    """Return the parsed response, if it is no failure. Raises VendorError.

    A failure comes with status 200, or any other. Only documented words are taken from it: any other text may repeat
    the request.
    """
    parsed = _json(response.readable_text())
    if isinstance(parsed, dict):
        result, message = (str(parsed.get(name)).strip() for name in ("result", "message"))
        for (kind, words), error in FAILURES.items():
            # A refused login is one, whatever kind of failure it is called.
            if message.startswith(words) and (result == kind or error is SignInPausedError):
                raise error(f"IzzitUp: {words}", vendor=VENDOR, status=response.status)
    if response.status == 401:  # whoever says so, it was the login that was refused
        raise SignInPausedError("IzzitUp answered 401", vendor=VENDOR, status=401)
    try:
        expect(replace(response, body=b""), 200)
    except RefusedError as error:  # the web server's word, not IzzitUp's
        raise NotDoneError(error.message, vendor=VENDOR, status=error.status) from None
    if parsed is None:
        raise ContractBrokenError("IzzitUp's response is not JSON", vendor=VENDOR, status=200)
    return response.masked(parsed)


def _json(text: str) -> Any:
    """Return the parsed response, also if PHP puts a notice before it; None if there is none.

    At most MOST_TRIES places in the text are tried.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    end = 0
    for place in islice(_OBJECT.finditer(text), MOST_TRIES):
        if place.start() < end:  # within the one before
            continue
        try:
            found, end = json.JSONDecoder().raw_decode(text, place.start())
        except (ValueError, RecursionError):
            continue
        if "result" in found and "message" in found:  # the notice may repeat the request, which has no result
            return found
    return None

"""IzzitUp (status page): https://support.lewe.com/docs/izzitup-manual/editor-guide/rest-api/

Its answers repeat what was sent, the password included, so nothing of an answer is kept but what is picked out here.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from enum import IntEnum
from itertools import islice
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, TypeAdapter, ValidationError

from crm_bridge.errors import (
    ContractBrokenError,
    NoSuchRecordError,
    NotConfiguredError,
    NotDoneError,
    RefusedError,
    SignInPausedError,
    SignInRefusedError,
    VendorError,
)
from crm_bridge.settings import IzzitUpSettings, Tenant
from crm_bridge.transport import Answer, Deadline, Transport, basic, changing_nothing, expect

VENDOR = "IzzitUp"
MAX_LIST = 2 * 1024 * 1024


class ServiceStatus(IntEnum):
    """The statuses that its API sets."""

    OPERATIONAL = 5
    IMPAIRED = 6
    OUTAGE = 7


class IzzitUpService(BaseModel):
    """A service as IzzitUp answers it: all members are text."""

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


class ServiceNotFoundError(NoSuchRecordError):
    """Warning `Service not found`"""


class StatusNotFoundError(RefusedError):
    """Warning `Status not found`"""


class StatusNotAllowedError(RefusedError):
    """Warning `Status not allowed. …`"""


class IncompleteRequestError(ContractBrokenError):
    """Error `Incomplete request`: it no longer takes what it is documented to take."""


class UnknownActionError(ContractBrokenError):
    """Error `Unknown action`: the same."""


class SignInFailedError(SignInPausedError):
    """Error `Sign in failed`: never tried again with the same password, because the account might be locked."""


class NotAllowedError(SignInRefusedError):
    """Error `Not allowed`: the account signed in, and lacks the right."""


FAILURES: Mapping[tuple[str, str], type[VendorError]] = {
    ("Warning", "Service not found"): ServiceNotFoundError,
    ("Warning", "Status not found"): StatusNotFoundError,
    ("Warning", "Status not allowed"): StatusNotAllowedError,
    ("Error", "Incomplete request"): IncompleteRequestError,
    ("Error", "Unknown action"): UnknownActionError,
    ("Error", "Sign in failed"): SignInFailedError,
    ("Error", "Not allowed"): NotAllowedError,
}
"""By `result` and how `message` begins. Source: the REST API page, "Error Messages"."""

_OBJECT = re.compile(r'\{[ \t\r\n]*"')
"""How an object with members begins. The braces of a page's styles and scripts do not count."""
MOST_TRIES = 50

_SERVICES = TypeAdapter(list[IzzitUpService])


class IzzitUpClient:
    """Calls of one tenant within one deadline. Raises VendorError."""

    def __init__(self, settings: IzzitUpSettings, transport: Transport, deadline: Deadline) -> None:
        self._settings = settings
        self._transport = transport
        self._deadline = deadline

    @property
    def address(self) -> str:
        return self._settings.base_url

    def services(self) -> list[IzzitUpService]:
        """`GET /api/services` without a body, and without signing in: all services, the hidden ones too if it says so.

        Source: the REST API page; what the list looks like is not documented, so all likely forms are understood.
        """
        with changing_nothing():
            parsed = _parsed(self._call("GET", None))
        data = parsed.get("data") if isinstance(parsed, dict) else parsed
        try:
            return _SERVICES.validate_python(list(data.values()) if isinstance(data, dict) else data)
        except ValidationError:
            raise ContractBrokenError("IzzitUp's list of services is none", vendor=VENDOR, status=200) from None

    def set_status(self, service_id: str, status: ServiceStatus) -> IzzitUpService | None:
        """`POST /api/services` with the action `setstatus`: the service as it is then, if it is told.

        Source: the REST API page
        """
        settings = self._settings
        action = {
            "action": "setstatus",
            "service": int(service_id) if service_id.isdecimal() else service_id,
            "status": int(status),
            "user": settings.user,
            "pwd": settings.password.get_secret_value(),
        }
        parsed = _parsed(self._call("POST", action))
        if not isinstance(parsed, dict) or parsed.get("result") != "Success":
            raise ContractBrokenError("IzzitUp said neither success nor a failure that is documented", vendor=VENDOR)
        try:
            return IzzitUpService.model_validate(parsed.get("data"))
        except ValidationError:  # done it is
            return None

    def _call(self, method: str, body: object) -> Answer:
        password = self._settings.password.get_secret_value()
        return self._transport.call(
            VENDOR,
            method,
            f"{self._settings.base_url}/api/services",
            deadline=self._deadline,
            headers={},
            body=body,
            secrets=(password, basic(self._settings.user, password)),
            max_answer=MAX_LIST,
        )


def izzitup_client(settings: Tenant, transport: Transport, deadline: Deadline) -> IzzitUpClient:
    """Raises NotConfiguredError."""
    if settings.izzitup is None:
        raise NotConfiguredError("The tenant's secret has no izzitup block. Add it, then send again.")
    return IzzitUpClient(settings.izzitup, transport, deadline)


def _parsed(answer: Answer) -> Any:
    """The reply, if it is no failure. Raises VendorError.

    A failure comes with status 200, or any other. No words are taken from it but those that are documented: any other
    text may be the request over again.
    """
    parsed = _json(answer.text_to_show())
    if isinstance(parsed, dict):
        result, message = (str(parsed.get(name)).strip() for name in ("result", "message"))
        for (kind, words), error in FAILURES.items():
            # A refused login is one, whatever kind of failure it is called.
            if message.startswith(words) and (result == kind or error is SignInFailedError):
                raise error(f"IzzitUp: {words}", vendor=VENDOR, status=answer.status)
    if answer.status == 401:  # whoever says so, it was the login that was refused
        raise SignInFailedError("IzzitUp answered 401", vendor=VENDOR, status=401)
    try:
        expect(replace(answer, body=b""), 200)
    except RefusedError as error:  # the web server's word, not IzzitUp's
        raise NotDoneError(error.message, vendor=VENDOR, status=error.status) from None
    if parsed is None:
        raise ContractBrokenError("IzzitUp answered something else than JSON", vendor=VENDOR, status=200)
    return answer.masked(parsed)


def _json(text: str) -> Any:
    """The reply, also behind a notice that PHP puts before it; None if there is none.

    Whatever else stands there, it is read MOST_TRIES times at most.
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

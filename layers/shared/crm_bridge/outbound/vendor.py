"""The base class of all vendors: HTTP calls to one account, within one deadline.

A subclass names its settings and, above each call, the page of the vendor's documentation that describes it. Whether a
call that failed may have done something is decided in `crm_bridge.outbound.transport`.
"""

from collections.abc import Callable, Iterator, Mapping
from copy import copy
from types import get_original_bases
from typing import ClassVar, Self, cast, get_args

from pydantic import BaseModel, SecretStr, ValidationError

from crm_bridge.errors import ContractBrokenError
from crm_bridge.outbound.findings import Finding, asked
from crm_bridge.outbound.response import VendorResponse, expect
from crm_bridge.outbound.transport import MAX_RESPONSE, Deadline, Pace, Transport, changing_nothing
from crm_bridge.services import Services
from crm_bridge.settings import Settings, Tenant

PATIENCE = 25.0
"""Seconds for one question of `check`."""
MOST_NAMED = 5
"""Members that an error names."""


class Vendor[SettingsT: Settings]:
    """Calls to one tenant's account. Every call raises VendorError if it fails.

    A call that changes nothing raises NotDoneError if its response is lost, never MaybeDoneError.
    """

    name: ClassVar[str]
    """In messages, logs and metrics."""
    shows_bodies: ClassVar[bool] = True
    """Whether a person may see what was sent and what came back, its secrets masked, when an attempt has failed."""
    settings_model: ClassVar[type[Settings]]
    """Taken from the type argument: `class Illu(Vendor[IlluSettings])`."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for model in get_args(get_original_bases(cls)[0]):  # none in a subclass of a vendor
            cls.settings_model = model

    def __init__(self, settings: SettingsT, transport: Transport, deadline: Deadline) -> None:
        self.settings = settings
        self._transport = transport
        self._deadline = deadline

    @classmethod
    def blocks(cls) -> tuple[type[Settings], ...]:
        """Return the blocks of the part of a tenant's document that this vendor needs."""
        return (cls.settings_model,)

    @classmethod
    def for_tenant(cls, tenant: Tenant, transport: Transport, deadline: Deadline, services: Services) -> Self:  # noqa: ARG003
        """Return the vendor with the tenant's settings. Raises NotConfiguredError if the tenant has none."""
        return cls(cls._settings_of(tenant), transport, deadline)

    @classmethod
    def _settings_of(cls, tenant: Tenant) -> SettingsT:
        return cast("SettingsT", tenant.require(cls.settings_model))

    def within(self, deadline: Deadline) -> Self:
        """Return the same vendor with another deadline."""
        other = copy(self)
        other._deadline = deadline  # noqa: SLF001 - a copy of itself
        return other

    # ------------------------------------------------------------------ declared by each vendor

    @property
    def address(self) -> str:
        """Return the address that the paths of all calls are appended to."""
        return str(getattr(self.settings, "base_url", ""))

    @property
    def destination(self) -> str:
        """Return the account that is written to, without a secret. An event is not repeated at another account."""
        return self.address

    @property
    def search_lag(self) -> int:
        """Return the seconds after which a new record is found by a look-up; 0 if nothing is looked up."""
        return int(getattr(self.settings, "search_lag", 0))

    def headers(self) -> Mapping[str, str]:
        """Return the headers of every call, such as credentials."""
        return {}

    def secrets(self) -> tuple[str, ...]:
        """Return the texts that are masked where the vendor repeats them: by default, every secret of the settings.

        A subclass adds what it derives from them, such as the value for HTTP Basic.
        """
        values = [getattr(self.settings, name) for name in type(self.settings).model_fields]
        return tuple([value.get_secret_value() for value in values if isinstance(value, SecretStr)])

    def pace(self) -> Pace | None:
        """Return how many calls the account takes in a time, if the vendor limits them."""
        return None

    def expect(self, response: VendorResponse, *statuses: int) -> None:
        """Raise the VendorError that fits, unless the response has one of `statuses`.

        A subclass overrides this if its vendor reports failures in other ways, such as in the body.
        """
        expect(response, *statuses)

    def check(self) -> Iterator[Finding]:
        """Yield what `crm-bridge doctor` is to know: whether the vendor responds, and takes the credentials.

        It changes nothing at the vendor.
        """
        yield from ()

    def asked[T](self, check: str, question: Callable[[Self], T], detail: Callable[[T], str]) -> Finding:
        """Return the finding of one question for `check`, which has a deadline of its own."""
        return asked(self.name, check, lambda: question(self.within(Deadline(PATIENCE))), detail)

    # ------------------------------------------------------------------ calls

    def get(
        self, path: str, *statuses: int, max_response: int = MAX_RESPONSE, noted: str | None = None
    ) -> VendorResponse:
        """Return the response to a GET, which is harmless to repeat: if it fails, it is surely not done.

        `noted` is the path as people see it, if this one has a customer's data in it.
        """
        with changing_nothing():
            response = self.call("GET", path, max_response=max_response, noted=noted)
            self.expect(response, *statuses)
        return response

    def post(self, path: str, body: object, *statuses: int) -> VendorResponse:
        """Return the response to a POST of JSON. It is sent once, and never repeated here."""
        return self._sent("POST", path, body, statuses)

    def put(self, path: str, body: object, *statuses: int) -> VendorResponse:
        """Return the response to a PUT of JSON."""
        return self._sent("PUT", path, body, statuses)

    def delete(self, path: str, *statuses: int) -> VendorResponse:
        """Return the response to a DELETE."""
        return self._sent("DELETE", path, None, statuses)

    def _sent(self, method: str, path: str, body: object, statuses: tuple[int, ...]) -> VendorResponse:
        response = self.call(method, path, body)
        self.expect(response, *statuses)
        return response

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        secrets: tuple[str, ...] = (),
        max_response: int | None = MAX_RESPONSE,
        is_login: bool = False,
        noted: str | None = None,
    ) -> VendorResponse:
        """Return the response to one request, whatever its status (see `Transport.call`).

        `headers` and `secrets` are added to those of every call. Nobody sees the bodies of one that `is_login`.
        """
        return self._transport.call(
            self.name,
            method,
            self.address + path,
            deadline=self._deadline,
            headers={**self.headers(), **(headers or {})},
            body=body,
            form=form,
            secrets=(*secrets, *self.secrets()),
            max_response=max_response,
            pace=self.pace(),
            path=noted or path,
            shows_bodies=self.shows_bodies and not is_login,
        )

    def read[ModelT: BaseModel](
        self, response: VendorResponse, model: type[ModelT], member: str | None = None
    ) -> ModelT:
        """Return the body of a response, or one `member` of it, as a `model`.

        Raises ContractBrokenError, which names the members that are missing or wrong, and shows no values.
        """
        parsed = response.json()
        if member is not None:
            parsed = parsed.get(member) if isinstance(parsed, dict) else None
        try:
            return model.model_validate(parsed)
        except ValidationError as error:
            places = (".".join(map(str, detail["loc"])) or member or "object" for detail in error.errors())
            wrong = ", ".join([*dict.fromkeys(places)][:MOST_NAMED])
            message = f"{self.name} answered {response.status} without a usable {wrong}"
            raise ContractBrokenError(message, vendor=self.name, status=response.status) from None

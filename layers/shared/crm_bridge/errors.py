"""Every error of the bridge, and what each one says may safely happen next.

BridgeError
├── ProblemError                  the caller gets an RFC 9457 problem
│   ├── NotJsonError              400
│   ├── NotXmlError               400
│   ├── UnauthenticatedError      401
│   ├── ForbiddenError            403
│   ├── NotFoundError             404
│   ├── RunningError              409  ask again after Retry-After
│   ├── ConflictError             409  it is in no state for this, or something else must be there first
│   ├── ErasedError               410  the event was processed, and its data were erased since
│   ├── TooLargeError             413
│   ├── UnsupportedMediaTypeError 415
│   ├── InvalidError              422  says which field and why
│   │   └── UnconfirmedError          an id could not be verified, and the person has not confirmed it
│   ├── RefusedByVendorError      422  with the vendor's own words
│   ├── TooManyRequestsError      429  the API key has sent more than it may; send the same after Retry-After
│   ├── InternalError             500  a defect of ours; what was stored is finished by itself
│   ├── BrokenContractError       502  the vendor answered nonsense; the bridge finds out what it did
│   └── UnavailableError          503  nothing was accepted; send the same again
│       ├── StorageError          DynamoDB or Secrets Manager did not respond
│       └── NotConfiguredError    the tenant's secret lacks what the flow needs
│           └── NoSettingsError       there is no such secret
├── PoisonError                   the bridge fails on an operation again and again
├── LinkTakenError                the id belongs to another operation's link already
├── OvertakenError                what is written along with an operation was changed by another
└── VendorError                   a call to a vendor brought no result
    ├── NotDoneError              surely not done, or harmless to repeat: send again later
    │   ├── TryLaterError         only the vendor says so (429, 503 with Retry-After): look first, if possible
    │   ├── SignInRefusedError    wrong credentials or a missing right: read them again, then wait
    │   │   ├── SignInPausedError     the same credentials must not be tried again, or the account may be locked
    │   │   └── AddressMovedError     a permanent or temporary redirect: the settings name an old address
    │   └── NotYetError           another operation comes first, and wakes this one when it has ended
    ├── RefusedError              the vendor refused for good: sending the same again is useless
    │   ├── MissingError              what the event refers to is not there: send that first, then this again
    │   ├── NoSuchRecordError         what the request itself addresses is not at the vendor
    │   ├── OpposedError              something else that was done before speaks against it
    │   ├── NeedlessError             it is not wanted any more, so it does not matter what an earlier sending did
    │   └── WrongFieldError           a field names something that the vendor does not have
    ├── MaybeDoneError            the vendor may have done it: look before sending
    │   ├── ContractBrokenError   it answered, but not as its documentation says
    │   └── HalfDoneError         a part of it may be done, and nothing is on its way
    ├── CannotLookError           the vendor cannot be asked: a person decides
    │   └── IncompleteSearchError             it does not show it, which proves nothing: a person decides in the end
    └── SeveralFoundError         it was asked, and what fits is not clear: a person decides
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Self

from crm_bridge.words import plain

if TYPE_CHECKING:
    from crm_bridge.responses import InvalidField


class Event(StrEnum):
    """What can happen to an operation. `engine.TRANSITIONS` says which state follows."""

    ACCEPTED = "accepted"
    CLAIMED = "claimed"
    RETRIED = "retried"
    DONE = "done"
    FOUND = "found"
    REFUSED = "refused"
    NOT_DONE = "not done"
    MAYBE_DONE = "maybe done"
    NOT_FOUND_YET = "not found yet"
    LOOK_FAILED = "look failed"
    LEASE_EXPIRED = "lease expired"
    IN_DOUBT = "in doubt"
    LINK_TAKEN = "link taken"
    DEFECT = "defect"
    OUT_OF_ATTEMPTS = "out of attempts"
    LINKED = "linked"
    RETRY_REQUESTED = "retry requested"
    MADE_DUE = "made due"
    RESERVED = "reserved"
    DISCARDED = "discarded"
    WITHDRAWN = "withdrawn"
    UNLINKED = "unlinked"
    ERASED = "erased"


class BridgeError(Exception):
    """Root of everything that the bridge raises on purpose."""


MOST_ERRORS, LONGEST_FIELD = 20, 100
"""The most wrong fields that a response names, and the most characters of a name. A body may have thousands."""


@dataclass(frozen=True)
class FieldError:
    """One field of a request that cannot be accepted, named as the caller wrote it (`site.latitude`)."""

    field: str
    message: str

    def to_response(self) -> "InvalidField":
        return {"field": self.field, "message": self.message}


class ProblemError(BridgeError):
    """Becomes the response `status` with an `application/problem+json` body.

    `detail` is shown to the caller: it says what to do and never repeats the input.
    """

    status: ClassVar[int]
    kind: ClassVar[str]
    title: ClassVar[str]
    retryable: ClassVar[bool] = False
    retry_after: ClassVar[int] = 30
    """Seconds that a caller is asked to wait if it is retryable and `headers` has no Retry-After."""

    def __init__(
        self,
        detail: str,
        *,
        fields: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        operation_id: str | None = None,
        extensions: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.fields = tuple(fields)
        self.headers = dict(headers or {})
        self.operation_id = operation_id
        self.extensions = dict(extensions or {})


class NotJsonError(ProblemError):
    status, kind, title = 400, "not-json", "The body is not JSON"


class NotXmlError(ProblemError):
    status, kind, title = 400, "not-xml", "The body is not XML that the bridge accepts"


class UnauthenticatedError(ProblemError):
    status, kind, title = 401, "unauthenticated", "No valid API key"


class ForbiddenError(ProblemError):
    status, kind, title = 403, "forbidden", "The API key does not allow this"


class NotFoundError(ProblemError):
    status, kind, title = 404, "not-found", "Not found"


class RunningError(ProblemError):
    status, kind, title = 409, "running", "The same event is being processed right now"
    retryable = True


class ConflictError(ProblemError):
    status, kind, title = 409, "conflict", "Not possible in the present state"
    retryable = True


class ErasedError(ProblemError):
    status, kind, title = 410, "erased", "The data of this event were erased"


class TooLargeError(ProblemError):
    status, kind, title = 413, "too-large", "The body is too large"


class UnsupportedMediaTypeError(ProblemError):
    status, kind, title = 415, "unsupported-media-type", "The content type is not accepted"


class InvalidError(ProblemError):
    status, kind, title = 422, "invalid", "The request is not valid"

    @classmethod
    def of(cls, *fields: FieldError) -> Self:
        """Return the error about these fields."""
        return cls("Correct the fields named in errors.", fields=fields)


class UnconfirmedError(InvalidError):
    """The vendor could not be asked whether an id is the right one, so a person has to give it a second time."""


class RefusedByVendorError(ProblemError):
    status, kind, title = 422, "refused-by-vendor", "The vendor refused this for good"


class TooManyRequestsError(ProblemError):
    status, kind, title = 429, "too-many-requests", "The API key sends too many requests"
    retryable = True
    retry_after = 1


class InternalError(ProblemError):
    status, kind, title = 500, "internal", "The bridge failed"
    retryable = True


class BrokenContractError(ProblemError):
    status, kind, title = 502, "broken-contract", "The vendor's response cannot be understood"
    retryable = True


class UnavailableError(ProblemError):
    status, kind, title = 503, "unavailable", "The event could not be accepted"
    retryable = True


class StorageError(UnavailableError):
    """DynamoDB or Secrets Manager did not respond, even after repeats."""

    retry_after = 5


class QueueError(BridgeError):
    """SQS did not respond, even after repeats. What was to be on a queue is due in the table all the same."""


class NotConfiguredError(UnavailableError):
    """The tenant's secret is missing, invalid, or has no block for the vendor of this flow."""

    retry_after = 300
    """A function reads a tenant's secret again after this time."""


class NoSettingsError(NotConfiguredError):
    """There is no secret, or it is marked for deletion."""


class PoisonError(BridgeError):
    """The bridge failed on an operation again and again, so it needs review; its message goes to the dead letters."""


class LinkTakenError(BridgeError):
    """A one-to-one link would tie an id that another operation has tied already."""


class OvertakenError(BridgeError):
    """An item that is written along with an operation is not as it was read.

    `there` is what the table has instead, one item for each of these writes: None if its condition holds, empty if
    there is nothing or the write does not ask for the item.
    """

    def __init__(self, there: Sequence[Mapping[str, Any] | None]) -> None:
        super().__init__()
        self.there = tuple(there)


class VendorError(BridgeError):
    """A call to a vendor brought no result; `event` is what the engine makes of it.

    `message` is short, redacted, `plain` text: the vendor's own words where it gave any. It goes to the caller and into
    the operation's attempts, and is kept out of logs, because a vendor may repeat what it was sent.
    """

    event: ClassVar[Event]

    def __init__(
        self, message: str, *, vendor: str, status: int | None = None, retry_after: float | None = None
    ) -> None:
        self.message = plain(message)
        super().__init__(self.message)
        self.vendor = vendor
        self.status = status
        self.retry_after = retry_after
        """Seconds that the vendor asked us to wait, if it did."""


class NotDoneError(VendorError):
    event = Event.NOT_DONE


class TryLaterError(NotDoneError):
    pass


class SignInRefusedError(NotDoneError):
    pass


class SignInPausedError(SignInRefusedError):
    pass


class NotYetError(NotDoneError):
    """Nothing was sent, because the operation `waits_for` comes first.

    `is_in_doubt`: this event has sent that one, which may be done. `retry_after` is the fallback if that one does not
    wake this one.
    """

    def __init__(
        self,
        message: str,
        *,
        vendor: str,
        waits_for: str,
        retry_after: float | None = None,
        is_in_doubt: bool = False,
    ) -> None:
        super().__init__(message, vendor=vendor, retry_after=retry_after)
        self.waits_for = waits_for
        self.is_in_doubt = is_in_doubt


class AddressMovedError(SignInRefusedError):
    """Handled as refused credentials are: the settings are read again, then the event waits and an alarm starts."""


class RefusedError(VendorError):
    """`fields`: those that the vendor named, with its words for each."""

    event = Event.REFUSED
    fields: Sequence["FieldError"] = ()


class MissingError(RefusedError):
    pass


class NoSuchRecordError(RefusedError):
    pass


class OpposedError(RefusedError):
    pass


class NeedlessError(RefusedError):
    pass


class WrongFieldError(RefusedError):
    def __init__(self, message: str, *, vendor: str, field: str) -> None:
        super().__init__(f"{field}: {message}", vendor=vendor)
        self.fields = [FieldError(field, plain(message))]


class MaybeDoneError(VendorError):
    event = Event.MAYBE_DONE
    is_on_its_way: ClassVar[bool] = True
    """Whether what was sent may still arrive at the vendor."""


class ContractBrokenError(MaybeDoneError):
    is_on_its_way = False


class HalfDoneError(MaybeDoneError):
    is_on_its_way = False


class CannotLookError(VendorError):
    event = Event.IN_DOUBT


class IncompleteSearchError(CannotLookError):
    pass


class SeveralFoundError(VendorError):
    event = Event.IN_DOUBT

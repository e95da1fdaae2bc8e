"""Findings of a vendor's check, for `crm-bridge doctor`."""

from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

from crm_bridge.errors import AddressMovedError, CannotLookError, RefusedError, SignInRefusedError, VendorError


class Result(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    NOT_CHECKED = "not checked"


class Finding(NamedTuple):
    """One question, and its answer. `about` is the vendor, the tenant or the bridge; `check` is the question."""

    about: str
    check: str
    result: Result
    detail: str = ""
    what_to_do: str = ""


_WHAT_TO_DO: tuple[tuple[type[VendorError], str], ...] = (
    (AddressMovedError, "Correct the address with `crm-bridge tenant set`."),
    (
        SignInRefusedError,
        "Correct the credentials with `crm-bridge tenant set`; they may have been changed at the vendor.",
    ),
    (
        RefusedError,
        "It responds and takes the credentials, but refuses this. Check the settings and the account's rights.",
    ),
    (VendorError, "Is the address right, and the vendor up? Events are kept meanwhile."),
)
"""The first that fits counts."""


def asked[T](about: str, check: str, question: Callable[[], T], detail: Callable[[T], str]) -> Finding:
    """Return what a question to a vendor found: the `detail` of its result, or the error that it raised."""
    try:
        return Finding(about, check, Result.OK, detail(question()))
    except CannotLookError as error:
        return Finding(about, check, Result.NOT_CHECKED, error.message)
    except VendorError as error:
        what_to_do = next(text for kind, text in _WHAT_TO_DO if isinstance(error, kind))
        return Finding(about, check, Result.FAILED, error.message, what_to_do)

"""Which refusals of a request that fits its schema are right: those for a reason that no schema can express."""

from typing import Any

import schemathesis
from schemathesis import Case, HookContext, Response
from schemathesis.openapi.checks import RejectedPositiveData

NOT_IN_A_SCHEMA = (
    "Rev.io has none of this name",
    "is in the future",
    "is not the client that this key belongs to",
    "is not the club in the address",
    "is not the one in the address",
    "belongs to another lead source",
    "is required without the header Idempotency-Key",
    "must not be before from",
    "must have at most 100 bytes",  # of which a letter may have several
)
"""How the bridge says so of a field."""


@schemathesis.hook
def filter_failure(
    context: HookContext,  # noqa: ARG001
    failure: Exception,
    case: Case[Any],
    response: Response,
) -> bool:
    """Whether it is one."""
    if not isinstance(failure, RejectedPositiveData) or response.status_code != 422:
        return True
    if case.media_type == "application/xml":  # it has no null: what is generated for that is the text "null"
        return False
    problem = response.json()
    if problem["type"].endswith(":refused-by-vendor"):
        return False
    return not all(any(said in error["message"] for said in NOT_IN_A_SCHEMA) for error in problem["errors"])

"""The command and the result of create_job."""

import json
import re
from datetime import date, datetime
from typing import Annotated, Self

from pydantic import AfterValidator, ConfigDict, Field, JsonValue, model_validator

from create_site.models import SiteDetails
from crm_bridge import Command, Result
from crm_bridge.fields import FIRST_YEAR, Id, Number, Schema, Text, printable, printable_schema

LARGEST_INSTANCES = 50_000


def _iso(value: str) -> str:
    """Return it as it was written: illu does not say which of the forms it wants."""
    is_date = re.fullmatch(r"\d{4}-\d\d-\d\d", value)
    try:
        due = date.fromisoformat(value) if is_date else datetime.fromisoformat(value)
    except ValueError:
        raise ValueError("must be a date or time as in ISO 8601: 2026-11-30 or 2026-11-30T08:00:00Z") from None
    if due.year < FIRST_YEAR:
        raise ValueError(f"must not be before {FIRST_YEAR}; leave it out if there is none")
    return value


def _iso_schema(_: object) -> dict[str, object]:
    return {"type": "string", "pattern": "^[2-9]", "anyOf": [{"format": "date"}, {"format": "date-time"}]}


def _without_brackets(value: str) -> str:
    if "[" in value or "]" in value:
        raise ValueError("must not contain [ or ], between which it stands in a job's notes")
    return value


def _storable(value: list[dict[str, JsonValue]]) -> list[dict[str, JsonValue]]:
    try:
        size = len(json.dumps(value, allow_nan=False))
    except ValueError:
        raise ValueError("must not contain numbers that are not finite") from None
    if size > LARGEST_INSTANCES:
        raise ValueError(f"must have at most {LARGEST_INSTANCES} characters as JSON")
    return value


_NULL: JsonValue = {"type": "null"}
_GIVEN: JsonValue = {"not": {"type": "null"}}
ONE_SITE: dict[str, JsonValue] = {
    "oneOf": [
        {"required": ["customer_id"], "properties": {"customer_id": _GIVEN, "site_id": _NULL}},
        {"required": ["site_id"], "properties": {"site_id": _GIVEN, "customer_id": _NULL, "site": _NULL}},
    ]
}
"""The rules of `_names_one_site`, as JSON Schema."""


class NewJob(Command):
    """A ticket that is to become a job, at the site of a customer or at a site by its id."""

    model_config = ConfigDict(json_schema_extra=ONE_SITE)

    ticket_id: Annotated[Id, AfterValidator(_without_brackets), Schema(pattern=r"^[^\[\]]*$")]
    name: Annotated[Text, Field(max_length=500)]
    customer_id: Id | None = None
    site_id: Number | None = None
    site: SiteDetails | None = None
    """Of a customer who may have no site yet: then it is made first."""
    due_date: Annotated[Text, AfterValidator(_iso), Schema(_iso_schema)] | None = None
    assigned_user_id: Number | None = None
    notes: Annotated[str, Field(max_length=10_000), AfterValidator(printable), Schema(printable_schema)] | None = None
    tag_ids: Annotated[list[Number], Field(max_length=100)] | None = None
    workflow_instances: Annotated[list[dict[str, JsonValue]], AfterValidator(_storable), Schema()] | None = None
    """Passed on as they are: illu does not document them."""

    @model_validator(mode="after")
    def _names_one_site(self) -> Self:
        if (self.customer_id is None) is (self.site_id is None):
            raise ValueError("give either customer_id or site_id")
        if self.site and self.customer_id is None:
            raise ValueError("site goes with customer_id")
        return self


class JobCreated(Result):
    """illu's own members as they came, whose job it is, and where."""

    job_id: str
    ticket_id: str
    site_id: int

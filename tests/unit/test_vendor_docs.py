"""The vendors' pages have every field and every documented failure, and docs/vendor-tests.md a test of each."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import pytest

from connector_receiver.models import PersonSave
from create_job.models import NewJob
from create_site.models import SiteDetails
from crm_bridge.mapping import PayloadMapping
from crm_bridge.vendors import izzitup, revio
from crm_bridge.vendors.egito_settings import PERSON_FIELDS
from local.events import load_event
from local.template import TEMPLATE
from local.vendors.egito import _VERBS, DICTIONARY
from local.vendors.revio import RevioAccount

ROOT = TEMPLATE.parent


PAGES = {
    "illu": "vendors/illu.md",
    "Rev.io": "vendors/revio.md",
    "IzzitUp": "vendors/izzitup.md",
    "Egito": "vendors/egito.md",
    "InTouch": "intouch.md",
    "Upya": "connect/upya.md",
}
TESTS = "vendor-tests.md"


class Row(NamedTuple):
    vendor: str
    kind: str
    first: str
    """Its first cell, as it is written."""

    @property
    def names(self) -> list[str]:
        return re.findall(r"`([^`]+)`", self.first) or re.findall(r"\w+", self.first)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def rows() -> Iterator[Row]:
    """Yield the rows of the tables of fields, failures and methods of all pages."""
    for vendor, page in PAGES.items():
        kind = ""
        for line in (ROOT / "docs" / page).read_text().splitlines():
            if head := re.match(r"\| (field|failure|method) \|", line):
                kind = head[1]
            elif not line.startswith("|"):
                kind = ""
            elif kind and set(line) - set("|-"):
                yield Row(vendor, kind, cells(line)[0])


def covered_rows() -> dict[Row, str]:
    """Return the test of each row that docs/vendor-tests.md names."""
    lines = (ROOT / "docs" / TESTS).read_text().splitlines()
    table = [cells(line) for line in lines if line.endswith("` |")]
    return {Row(*row[:3]): row[3].strip("`") for row in table}


ROWS = list(rows())


def listed(vendor: str, kind: str) -> set[str]:
    return {name for row in ROWS if (row.vendor, row.kind) == (vendor, kind) for name in row.names}


def test_the_tables_are_read() -> None:
    assert {(row.vendor, row.kind) for row in ROWS} == {
        (vendor, kind) for vendor in ("illu", "Rev.io", "IzzitUp", "Egito") for kind in ("field", "failure")
    } | {("Upya", "field"), ("InTouch", "field"), ("Egito", "method")}


@cache
def functions_of(file: str) -> set[str]:
    source = (ROOT / "tests" / file).read_text()
    return {node.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)}


def test_every_row_has_its_test() -> None:
    assert len(ROWS) == len(set(ROWS))
    assert covered_rows().keys() == set(ROWS)


@pytest.mark.parametrize("test", sorted(set(covered_rows().values())))
def test_a_row_names_a_test_that_there_is(test: str) -> None:
    file, _, name = test.partition("::")
    assert name in functions_of(file)


def test_every_field_that_illu_is_sent_is_listed() -> None:
    ours = {"customer_id", "ticket_id", "site"}
    sent = set(SiteDetails.model_fields) | set(NewJob.model_fields) - ours
    assert sent | {"site_id", "is_active", "org_id", "job_id", "Authorization"} == listed("illu", "field")


def test_every_field_of_the_upya_records_that_are_built_in_is_listed() -> None:
    records = [load_event(flow, "upya") for flow in ("create_site", "create_job")]
    known = {name for record in records for name in ast.literal_eval(record["body"])} - {"gps"}
    assert known | {"api-key"} == listed("Upya", "field")
    assert PayloadMapping(built_in="upya").label == "upya 1"


def test_every_field_of_rev_io_is_listed() -> None:
    stored = set(RevioAccount("acme").add_key_link(4, 2, 1015, "E-1")) - {"integration_key_link_id"}
    names = {member for _, *members in revio._NAMES.values() for member in members}
    paging = {"search.page", "search.page_size", "records", "has_more", "record_count", "ok", "links"}
    searches = {"search.external_id", "search.system_name", "search.entity_type_name", "search.internal_id"}
    headers = {"Authorization", "Ocp-Apim-Subscription-Key", "Location"}
    assert stored | names | paging | searches | headers | {"id"} == listed("Rev.io", "field")
    assert {"400", "401", "403", "404", "405", "429", "quota", "5xx"} == listed("Rev.io", "failure")


def test_every_field_and_every_failure_of_izzitup_is_listed() -> None:
    envelope = {"action", "service", "status", "user", "pwd", "uri", "request", "result", "message", "data"}
    assert envelope | set(izzitup.IzzitUpService.model_fields) == listed("IzzitUp", "field")
    assert {words for _, words in izzitup.FAILURES} == listed("IzzitUp", "failure")


def test_every_field_of_the_connector_is_listed() -> None:
    names = {field.alias or name for name, field in PersonSave.model_fields.items()}
    assert names == listed("InTouch", "field")
    assert PERSON_FIELDS.keys() < names


def test_every_method_of_egito_is_listed() -> None:
    of_dictionaries = {f"{DICTIONARY}/{method}" for method in ("list", "create", "update")}
    assert _VERBS.keys() | of_dictionaries == listed("Egito", "method")


def test_every_field_and_every_failure_of_egito_is_listed() -> None:
    login = {"grant_type", "client_id", "client_secret", "username", "password"}
    token = {"access_token", "token_type", "refresh_token", "expires_in", "scope", "Authorization"}
    assert login | token | {"id", "errors", "type", "name"} == listed("Egito", "field")
    refused = {"invalid_grant", "invalid_client", "access_denied", "unauthorized"}
    passing = {"temporarily_unavailable", "slow_down", "server_error"}
    others = {"errors", "page", "invalid_token", "4xx", "5xx", "deleted"}
    assert refused | passing | others == listed("Egito", "failure")

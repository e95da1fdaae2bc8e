"""The cost of an event in DynamoDB, counted on the wire by table and index."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import pytest

from crm_bridge.storage.operation import LISTING_SHARDS, SHARDS
from docs import costs
from local.template import TEMPLATE
from tests.faults import trips
from tests.integration.conftest import SITE, Crm
from tests.integration.create_job.conftest import JOB
from tests.stack import Stack
from tests.units import Meter

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

EVENTS_PER_SECOND = 1000
HOTTEST = 500
"""Write units in a second of one partition; DynamoDB allows 1,000."""


@pytest.fixture
def stack() -> Iterator[Stack]:
    """Its DynamoDB is moto's, into whose tables the meter looks."""
    with Stack(background=False, aws_over_http=False) as stack:
        yield stack


@pytest.fixture(scope="module")
def counted() -> Mapping[str, trips.Trips]:
    """Of the events of the fault matrix, whose texts are long: some of their operations are larger than 1 KB."""
    return {one.kind: one for one in trips.measure()}


@pytest.fixture
def ordinary(crm: Crm) -> Mapping[str, Meter]:
    """Of events as CRMs send them."""
    assert crm.stack.aws
    found = {}
    crm.create_site()
    for number, (name, path, body) in enumerate(
        [("new site", "/sites", SITE), ("repeated event", "/sites", SITE), ("new job", "/jobs", JOB)]
    ):
        meter = found[name] = Meter(crm.stack.aws.answers)
        crm.stack.aws.answers = meter
        sent = {**body, "customer_id": "C-2"} if body is SITE else body
        assert crm.post(path, sent).status_code == (200 if number == 1 else 201)
        crm.stack.aws.answers = meter.behind
    return found


def test_a_new_site_costs_ten_units_and_a_repeated_one_costs_one(counted: Mapping[str, trips.Trips]) -> None:
    site = counted["create_site"]
    assert site.writes[0] == {"Operations": 3, "Operations/due": 2, "Operations/listing": 1, "Links": 4}
    assert {place: units for place, units in site.writes[1].items() if units} == {"Operations": 1}
    assert sum(site.reads[0].values()) == sum(site.reads[1].values()) == 0
    assert costs.EVENTS * costs.usd("dynamodb_write", 10) == pytest.approx(6.25)


class Calls:
    """Counts the requests to AWS."""

    def __init__(self, behind: "WSGIApplication") -> None:
        self.behind, self.number = behind, 0

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        self.number += 1
        return self.behind(environ, start_response)


def test_a_payload_that_differs_takes_one_call_more_the_first_time_and_none_after_it(crm: Crm) -> None:
    assert crm.stack.aws
    crm.create_site()
    counted = []
    for address in (SITE["address"], "Moi Ave 13", "Moi Ave 13", SITE["address"]):
        calls = Calls(crm.stack.aws.answers)
        crm.stack.aws.answers = calls
        assert crm.create_site(address=address).status_code == 200
        crm.stack.aws.answers = calls.behind
        counted.append(calls.number)
    assert counted == [1, 2, 1, 1]


def test_the_costs_are_calculated_with_the_units_that_are_counted(ordinary: Mapping[str, Meter]) -> None:
    for event, meter in ordinary.items():
        facts = costs.FACTS["event"][event]
        counted = {"writes": sum(meter.writes.values()), "reads": sum(meter.reads.values())}
        assert counted == {name: facts[name] for name in counted}, event


@pytest.mark.parametrize("kind", ["create_site", "create_job", "key_link create", "status_update"])
def test_no_partition_is_hot_when_one_tenant_sends_a_thousand_events_in_a_second(
    counted: Mapping[str, trips.Trips], kind: str
) -> None:
    for index, shards in (("due", SHARDS), ("listing", LISTING_SHARDS)):
        units = counted[kind].writes[0][f"Operations/{index}"]
        assert 0 < units * EVENTS_PER_SECOND / len(shards) <= HOTTEST, index


def test_the_listing_is_written_once_for_each_operation_that_settles(counted: Mapping[str, trips.Trips]) -> None:
    for kind in ("create_site", "create_job", "key_link create", "status_update"):
        new, _, *retried = (of.get("Operations/listing", 0) for of in counted[kind].writes)
        assert (new, *retried) == (1, 1, 1), kind


@pytest.mark.parametrize("file", ["docs/performance.md", "bench/performance.md"])
def test_the_page_shows_what_was_counted(file: str, counted: Mapping[str, trips.Trips]) -> None:
    page = (TEMPLATE.parent / file).read_text()
    for table in trips.tables(counted.values()):
        assert f"**{table.name}**\n\n{table.markdown()}" in page

"""The bridge's own tables."""

from functools import partial
from typing import TYPE_CHECKING

import pytest

from crm_bridge.errors import LinkTakenError
from crm_bridge.storage.links import Identity, Link, Links
from crm_bridge.storage.operation import Operation, State
from crm_bridge.storage.operations import Claim, Operations

if TYPE_CHECKING:
    pass
from tests.integration.dynamodb.conftest import RACERS, ROUNDS, TENANT, new_key, race, sending

# ------------------------------------------------------------------ the bridge's own tables


def succeeded(operation: Operation) -> Operation:
    changes = {"state": State.SUCCEEDED, "result": "{}", "payload": None, "due_at": None, "updated_at": 1001}
    return operation.model_copy(update=changes)


def site_link(customer: str, site: str) -> Link:
    return Link(Identity("crm", "customer", customer), Identity("illu", "site", site))


@pytest.mark.usefixtures("restless_threads")
def test_one_create_wins_and_the_others_get_its_record_when_twenty_race(operations: Operations) -> None:
    def create(customer: str, racer: int) -> Claim:
        return operations.create(sending(customer, lease=f"racer{racer}"), over={State.REJECTED})

    for customer in [new_key() for _ in range(ROUNDS)]:
        claims = race(partial(create, customer))
        winners = [racer for racer, claim in enumerate(claims) if claim.won]
        assert len(winners) == 1
        assert {claim.operation for claim in claims} == {sending(customer, lease=f"racer{winners[0]}")}
        assert operations.get(claims[0].operation.operation_id) == claims[0].operation


@pytest.mark.usefixtures("restless_threads")
def test_one_claim_wins_and_the_others_get_its_record_when_twenty_race(operations: Operations) -> None:
    def claim(operation_id: str, racer: int) -> Claim | None:
        return operations.claim(
            operation_id, lease=f"racer{racer}", now=1030, until=1060, states={State.WAITING}, tenant=TENANT
        )

    for customer in [new_key() for _ in range(ROUNDS)]:
        due = sending(customer).model_copy(update={"state": State.WAITING})
        operations.create(due, over={State.REJECTED})
        claims = [claim for claim in race(partial(claim, due.operation_id)) if claim]
        winners = [racer for racer, claim in enumerate(claims) if claim.won]
        assert (len(claims), len(winners)) == (RACERS, 1)
        changes = {"lease": f"racer{winners[0]}", "was": State.WAITING, "tries": 2, "due_at": 1060, "updated_at": 1030}
        assert {claim.operation for claim in claims} == {sending(customer).model_copy(update=changes)}
        assert operations.get(due.operation_id) == claims[0].operation


def test_claim_is_none_when_there_is_no_such_operation(operations: Operations) -> None:
    taken = operations.claim(new_key(), lease="any", now=1030, until=1060, states={State.SENDING}, tenant=TENANT)
    assert taken is None


def test_save_returns_the_stored_record_when_it_is_repeated(operations: Operations, links: Links) -> None:
    customer, site = new_key(), new_key()
    held = sending(customer)
    operations.create(held, over={State.REJECTED})
    done = succeeded(held)
    puts = list(links.puts(TENANT, [site_link(customer, site)], held.operation_id, 1001))
    assert operations.save(done, puts) == done
    assert operations.save(done, puts) == done
    assert operations.get(held.operation_id) == done
    assert [partner.operation_id for partner in links.of(TENANT, Identity("illu", "site", site))] == [held.operation_id]


def test_save_writes_nothing_and_returns_the_new_holders_record_when_the_lease_was_taken(
    operations: Operations, links: Links
) -> None:
    customer, site = new_key(), new_key()
    held = sending(customer)
    operations.create(held, over={State.REJECTED})
    taken = operations.claim(
        held.operation_id, lease="second", now=1030, until=1060, states={State.SENDING}, tenant=TENANT
    )
    assert taken
    assert taken.won
    puts = list(links.puts(TENANT, [site_link(customer, site)], held.operation_id, 1031))
    assert operations.save(succeeded(held), puts) == taken.operation
    assert operations.get(held.operation_id) == taken.operation
    assert links.of(TENANT, Identity("illu", "site", site)) == []


@pytest.mark.usefixtures("restless_threads")
def test_one_save_links_a_site_and_nothing_of_the_others_is_written_when_twenty_race(
    operations: Operations, links: Links
) -> None:
    def save(site: str, racer: int) -> Operation | None:
        """The operation if it was saved."""
        link = site_link(f"{site}-{racer}", site)
        held = sending(link.left.id)
        operations.create(held, over={State.REJECTED})
        try:
            return operations.save(succeeded(held), list(links.puts(TENANT, [link], held.operation_id, 1001)))
        except LinkTakenError:
            return None

    for site in [new_key() for _ in range(ROUNDS)]:
        saved = race(partial(save, site))
        winners = [racer for racer, operation in enumerate(saved) if operation]
        assert len(winners) == 1
        for racer in range(RACERS):
            customer, won = f"{site}-{racer}", racer in winners
            held = sending(customer)
            assert operations.get(held.operation_id) == (succeeded(held) if won else held)
            partners = [partner.identity for partner in links.of(TENANT, Identity("crm", "customer", customer))]
            assert partners == ([Identity("illu", "site", site)] if won else [])
        winner = Identity("crm", "customer", f"{site}-{winners[0]}")
        assert [partner.identity for partner in links.of(TENANT, Identity("illu", "site", site))] == [winner]

"""Links: both directions, one partner where there may be only one, tenants apart."""

import pytest

from crm_bridge.errors import StorageError
from crm_bridge.links import Cardinality, Identity, Link
from tests.unit.conftest import Tables

NOW = 1_795_000_000.0


def store(tables: Tables, tenant: str, link: Link, operation_id: str) -> bool:
    """Whether the link could be written."""
    client = tables.links._client
    try:
        client.transact_write_items(TransactItems=list(tables.links.puts(tenant, [link], operation_id, NOW)))
    except client.exceptions.TransactionCanceledException:
        return False
    return True


def partners(tables: Tables, tenant: str, identity: Identity) -> list[str]:
    return sorted(partner.identity.id for partner in tables.links.of(tenant, identity))


def customer(number: str) -> Identity:
    return Identity("crm", "customer", number)


def site(number: str) -> Identity:
    return Identity("illu", "site", number)


def job(number: str) -> Identity:
    return Identity("illu", "job", number)


def test_a_link_is_found_from_both_its_ends(tables: Tables) -> None:
    assert store(tables, "acme", Link(customer("C-1"), site("1")), "op_1")
    assert partners(tables, "acme", customer("C-1")) == ["1"]
    assert partners(tables, "acme", site("1")) == ["C-1"]
    assert partners(tables, "acme", site("C-1")) == []


def test_a_link_belongs_to_its_tenant(tables: Tables) -> None:
    assert store(tables, "acme", Link(customer("C-1"), site("1")), "op_1")
    assert store(tables, "umbrella", Link(customer("C-1"), site("2")), "op_2")
    assert partners(tables, "acme", customer("C-1")) == ["1"]
    assert partners(tables, "umbrella", customer("C-1")) == ["2"]


@pytest.mark.parametrize(
    ("cardinality", "second_right", "second_left"),
    [
        (Cardinality.ONE_TO_ONE, False, False),
        (Cardinality.MANY_TO_ONE, False, True),
        (Cardinality.MANY_TO_MANY, True, True),
    ],
)
def test_a_second_partner_is_refused_where_there_may_be_only_one(
    tables: Tables, cardinality: Cardinality, second_right: bool, second_left: bool
) -> None:
    assert store(tables, "acme", Link(job("1"), site("1"), cardinality), "op_1")
    assert store(tables, "acme", Link(job("1"), site("2"), cardinality), "op_2") is second_right
    assert store(tables, "acme", Link(job("2"), site("1"), cardinality), "op_3") is second_left


def test_the_same_operation_may_write_its_link_again(tables: Tables) -> None:
    link = Link(customer("C-1"), site("1"))
    assert store(tables, "acme", link, "op_1")
    assert store(tables, "acme", link, "op_1")
    assert not store(tables, "acme", link, "op_2")


def test_taken_is_what_another_operation_holds(tables: Tables) -> None:
    link = Link(customer("C-1"), site("1"))
    assert not tables.links.taken("acme", [link], "op_1")
    assert store(tables, "acme", link, "op_1")
    assert not tables.links.taken("acme", [link], "op_1")
    assert tables.links.taken("acme", [link], "op_2")
    assert tables.links.taken("acme", [Link(customer("C-2"), site("1"))], "op_2")
    assert tables.links.taken("acme", [Link(customer("C-1"), site("2"))], "op_2")
    assert not tables.links.taken("umbrella", [link], "op_2")
    assert not tables.links.taken("acme", [], "op_2")
    assert not tables.links.taken("acme", [Link(customer("C-1"), site("1"), Cardinality.MANY_TO_MANY)], "op_2")


def test_nothing_is_said_to_be_free_when_the_table_did_not_answer_in_full(
    tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    throttled = {"Responses": {tables.links._table: []}, "UnprocessedKeys": {tables.links._table: {"Keys": [{}]}}}
    monkeypatch.setattr(tables.links._client, "batch_get_item", lambda **_: throttled)
    with pytest.raises(StorageError):
        tables.links.taken("acme", [Link(customer("C-1"), site("1"))], "op_1")


@pytest.mark.parametrize("odd", ["a#b", "a%23b", "a b", "a/b", "ä€😀", "#", "%", "x" * 200, "😀" * 200, "#" * 200])
def test_any_id_is_kept_as_it_is_and_apart_from_all_others(tables: Tables, odd: str) -> None:
    many = Link(Identity("crm", "a", odd), Identity("crm", "b", odd), Cardinality.MANY_TO_MANY)
    assert store(tables, "acme", many, "op_1")
    assert partners(tables, "acme", Identity("crm", "a", odd)) == [odd]
    for other in ("a", "a#b#c", "a%2523b", odd + "#", odd.replace("#", "%23") + "x"):
        assert partners(tables, "acme", Identity("crm", "a", other)) == []
    assert partners(tables, "acme", Identity("crm#a", "", odd)) == []

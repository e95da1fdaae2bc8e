"""Links: both directions, one partner where there may be only one, tenants apart."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import combinations
from typing import Any

import pytest
from botocore.exceptions import ReadTimeoutError

from crm_bridge.errors import StorageError
from crm_bridge.storage.links import LONGEST_KEY, Cardinality, Identity, Link, Links, Partner, joined, parted
from tests.unit.conftest import Tables
from tests.variants import IS_LONG

NOW = 1_795_000_000.0


@pytest.fixture(params=["memory", "moto"] if IS_LONG else ["memory"])
def emulator(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


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


def test_another_operation_may_write_the_same_link_where_nothing_is_exclusive(tables: Tables) -> None:
    link = Link(job("1"), site("1"), Cardinality.MANY_TO_MANY)
    assert store(tables, "acme", link, "op_1")
    assert store(tables, "acme", link, "op_2")
    assert [partner.operation_id for partner in tables.links.of("acme", site("1"))] == ["op_2"]


def test_taken_is_what_another_operation_holds(tables: Tables) -> None:
    link = Link(customer("C-1"), site("1"))
    assert tables.links.taken("acme", [[link]], "op_1") == [False]
    assert store(tables, "acme", link, "op_1")
    assert tables.links.taken("acme", [[link]], "op_1") == [False]
    assert tables.links.taken("umbrella", [[link]], "op_2") == [False]
    assert tables.links.taken("acme", [], "op_2") == []
    groups = [
        [link],
        [],
        [Link(customer("C-2"), site("1"))],
        [Link(customer("C-2"), site("2"))],
        [Link(customer("C-3"), site("3")), Link(customer("C-1"), site("2"))],
        [Link(customer("C-1"), site("1"), Cardinality.MANY_TO_MANY)],
    ]
    assert tables.links.taken("acme", groups, "op_2") == [True, False, True, False, True, False]


def test_taken_is_told_of_more_groups_than_one_question_takes(tables: Tables) -> None:
    for number in ("0", "299"):
        store(tables, "acme", Link(customer(f"C-{number}"), site(number)), "op_1")
    groups = [[Link(customer(f"C-{number}"), site(str(number)))] for number in range(300)]
    taken = tables.links.taken("acme", groups, "op_2")
    assert [number for number, is_taken in enumerate(taken) if is_taken] == [0, 299]
    assert len(taken) == 300


@pytest.mark.parametrize(
    "ask",
    [
        lambda links: links.taken("acme", [[Link(customer("C-1"), site("1"))]], "op_1"),
        lambda links: links.releases("acme", [(customer("C-1"), site("1"))], "op_1"),
    ],
)
def test_nothing_is_said_to_be_free_when_the_table_did_not_answer_in_full(
    tables: Tables, monkeypatch: pytest.MonkeyPatch, ask: Callable[[Links], object]
) -> None:
    throttled = {"Responses": {tables.links._table: []}, "UnprocessedKeys": {tables.links._table: {"Keys": [{}]}}}
    monkeypatch.setattr(tables.links._client, "batch_get_item", lambda **_: throttled)
    with pytest.raises(StorageError, match="storage is throttled"):
        ask(tables.links)


@pytest.mark.parametrize("odd", ["a#b", "a%23b", "a b", "a/b", "ä€😀", "#", "%", "x" * 200, "😀" * 200, "#" * 200])
def test_any_id_is_kept_as_it_is_and_apart_from_all_others(tables: Tables, odd: str) -> None:
    many = Link(Identity("crm", "a", odd), Identity("crm", "b", odd), Cardinality.MANY_TO_MANY)
    assert store(tables, "acme", many, "op_1")
    assert partners(tables, "acme", Identity("crm", "a", odd)) == [odd]
    for other in ("a", "a#b#c", "a%2523b", odd + "#", odd.replace("#", "%23") + "x"):
        assert partners(tables, "acme", Identity("crm", "a", other)) == []
    assert partners(tables, "acme", Identity("crm#a", "", odd)) == []


@pytest.mark.parametrize(
    ("other", "is_same"),
    [
        (Identity("salesforce", "account", "001Dn00000abcDEIAY"), True),
        (Identity("salesforce", "account", "001Dn00000abcDE"), True),
        (Identity("salesforce", "account", "001Dn00000abcDF"), False),
        (Identity("salesforce", "contact", "001Dn00000abcDE"), False),
        (Identity("hubspot", "account", "001Dn00000abcDE"), False),
    ],
)
def test_the_same_record_is_known_in_either_form_of_its_id(other: Identity, *, is_same: bool) -> None:
    assert Identity("salesforce", "account", "001Dn00000abcDE").is_same(other) is is_same


# ---------------------------------------------------------------- the only partner


def test_the_only_partner_is_found_from_both_ends(tables: Tables) -> None:
    assert store(tables, "acme", Link(customer("C-1"), site("1")), "op_1")
    assert tables.links.one("acme", customer("C-1"), "illu", "site") == site("1")
    assert tables.links.one("acme", site("1"), "crm", "customer") == customer("C-1")


def test_there_is_no_only_partner_of_another_kind_or_tenant(tables: Tables) -> None:
    assert store(tables, "acme", Link(customer("C-1"), site("1")), "op_1")
    assert tables.links.one("acme", customer("C-1"), "illu", "job") is None
    assert tables.links.one("acme", customer("C-1"), "crm", "site") is None
    assert tables.links.one("acme", customer("C-2"), "illu", "site") is None
    assert tables.links.one("umbrella", customer("C-1"), "illu", "site") is None


def test_one_of_many_is_not_the_only_partner(tables: Tables) -> None:
    assert store(tables, "acme", Link(job("1"), site("1"), Cardinality.MANY_TO_ONE), "op_1")
    assert tables.links.one("acme", job("1"), "illu", "site") == site("1")
    assert tables.links.one("acme", site("1"), "illu", "job") is None


# ---------------------------------------------------------------- untying

ACCOUNT, ORDER, KEY = (
    Identity("sf", "account", "A"),
    Identity("revio", "order", "B"),
    Identity("revio", "key_link", "C"),
)


def tie(tables: Tables, members: Sequence[Identity], operation_id: str) -> None:
    for left, right in combinations(members, 2):
        assert store(tables, "acme", Link(left, right, Cardinality.MANY_TO_MANY), operation_id)


def all_partners(tables: Tables, *identities: Identity) -> list[list[str]]:
    return [partners(tables, "acme", identity) for identity in identities]


def test_what_an_operation_tied_is_untied_from_one_and_from_one_another(tables: Tables) -> None:
    tie(tables, [ACCOUNT, ORDER, KEY], "op_1")
    ties = tables.links.ties("acme", KEY)
    assert list(ties) == ["op_1"]
    assert (len(ties["op_1"].own), len(ties["op_1"].others)) == (4, 2)
    tables.links.write(ties["op_1"].own)
    assert all_partners(tables, ACCOUNT, ORDER, KEY) == [["B"], ["A"], []]
    tables.links.write(ties["op_1"].others)
    assert all_partners(tables, ACCOUNT, ORDER, KEY) == [[], [], []]


def test_what_another_operation_tied_is_apart(tables: Tables) -> None:
    other = Identity("revio", "key_link", "D")
    tie(tables, [ACCOUNT, ORDER, KEY], "op_1")
    tie(tables, [ACCOUNT, other], "op_2")
    ties = tables.links.ties("acme", ACCOUNT)
    assert sorted(ties) == ["op_1", "op_2"]
    tables.links.write([*ties["op_2"].own, *ties["op_2"].others])
    assert all_partners(tables, ACCOUNT, ORDER, KEY, other) == [["B", "C"], ["A", "C"], ["A", "B"], []]
    assert tables.links.ties("umbrella", ACCOUNT) == {}


@pytest.mark.parametrize("cardinality", list(Cardinality))
def test_what_an_operation_holds_of_a_link_is_released_at_both_ends(tables: Tables, cardinality: Cardinality) -> None:
    assert store(tables, "acme", Link(customer("C-1"), site("1"), cardinality), "op_1")
    assert tables.links.releases("acme", [(customer("C-1"), site("1"))], "op_2") == []
    tables.links.write(tables.links.releases("acme", [(customer("C-1"), site("1"))], "op_1"))
    assert partners(tables, "acme", customer("C-1")) == partners(tables, "acme", site("1")) == []


def test_nothing_is_untied_when_another_operation_has_tied_some_of_it_since(tables: Tables) -> None:
    tie(tables, [ACCOUNT, ORDER, KEY], "op_1")
    late = tables.links.ties("acme", KEY)["op_1"]
    tie(tables, [ACCOUNT, KEY], "op_2")
    with pytest.raises(StorageError):
        tables.links.write(late.own)
    assert all_partners(tables, ACCOUNT, ORDER, KEY) == [["B", "C"], ["A", "C"], ["A", "B"]]
    for ties in tables.links.ties("acme", KEY).values():
        tables.links.write(ties.own)
    assert all_partners(tables, ACCOUNT, ORDER, KEY) == [["B"], ["A"], []]


def test_what_is_untied_already_may_be_untied_again(tables: Tables) -> None:
    tie(tables, [ACCOUNT, ORDER, KEY], "op_1")
    ties = tables.links.ties("acme", KEY)["op_1"]
    for _ in range(2):
        tables.links.write(ties.own)
    assert all_partners(tables, ACCOUNT, ORDER, KEY) == [["B"], ["A"], []]


# ---------------------------------------------------------------- what is stored


def test_a_partner_says_since_when_and_by_which_operation(tables: Tables) -> None:
    assert store(tables, "acme", Link(customer("C-1"), site("1")), "op_1")
    assert tables.links.of("acme", customer("C-1")) == [
        Partner(site("1"), "op_1", datetime.fromtimestamp(NOW, UTC)),
    ]


def test_all_partners_are_found_over_all_pages(tables: Tables) -> None:
    for number in range(5):
        assert store(tables, "acme", Link(job(str(number)), site("1"), Cardinality.MANY_TO_ONE), f"op_{number}")
    client = tables.links._client
    real = client._make_api_call  # type: ignore[attr-defined]
    asked = []

    def call(name: str, arguments: dict[str, object]) -> object:
        asked.append(arguments)
        return real(name, {**arguments, "Limit": 2})

    client._make_api_call = call  # type: ignore[attr-defined]
    assert partners(tables, "acme", site("1")) == ["0", "1", "2", "3", "4"]
    assert len(asked) == 3


def test_what_decides_is_never_read_from_a_copy_that_may_be_stale(tables: Tables) -> None:
    client = tables.links._client
    real = client._make_api_call  # type: ignore[attr-defined]
    asked = []

    def call(name: str, arguments: dict[str, Any]) -> object:
        asked.append(
            (name, (arguments.get("RequestItems", {}).get(tables.links._table) or arguments)["ConsistentRead"])
        )
        return real(name, arguments)

    client._make_api_call = call  # type: ignore[attr-defined]
    tables.links.of("acme", site("1"))
    tables.links.one("acme", site("1"), "crm", "customer")
    tables.links.taken("acme", [[Link(customer("C-1"), site("1"))]], "op_1")
    tables.links.releases("acme", [(customer("C-1"), site("1"))], "op_1")
    assert asked == [("Query", True), ("GetItem", True), ("BatchGetItem", True), ("BatchGetItem", True)]


@pytest.mark.parametrize(
    ("parts", "key"),
    [
        (("acme", "crm", "customer", "C-1"), "acme#crm#customer#C-1"),
        (("a#b", "c"), "a%23b#c"),
        (("a", "b#c"), "a#b%23c"),
        (("a%23b", "50 %"), "a%2523b#50 %25"),
        (("",), ""),
    ],
)
def test_keys_are_readable_and_written_as_they_were_years_ago(parts: tuple[str, ...], key: str) -> None:
    assert joined(*parts) == key
    assert parted(key) == list(parts)


def test_an_id_that_no_key_can_hold_is_linked_to_nothing(tables: Tables) -> None:
    """DynamoDB would refuse the question."""
    prefix = len("acme#crm#customer#")
    asked = []
    client = tables.links._client
    real = client._make_api_call  # type: ignore[attr-defined]

    def call(name: str, arguments: dict[str, object]) -> object:
        asked.append(name)
        return real(name, arguments)

    client._make_api_call = call  # type: ignore[attr-defined]
    assert tables.links.of("acme", customer("x" * (LONGEST_KEY - prefix))) == []
    assert asked == ["Query"]
    assert tables.links.of("acme", customer("x" * (LONGEST_KEY - prefix + 1))) == []
    assert asked == ["Query"]


@pytest.mark.parametrize(
    "ask",
    [
        lambda links: links.of("acme", site("1")),
        lambda links: links.one("acme", site("1"), "crm", "customer"),
        lambda links: links.taken("acme", [[Link(customer("C-1"), site("1"))]], "op_1"),
        lambda links: links.ties("acme", site("1")),
        lambda links: links.write([]),
    ],
)
def test_says_that_the_storage_did_not_answer_whatever_it_was_asked(
    tables: Tables, ask: Callable[[Links], object]
) -> None:
    def call(_name: str, _arguments: dict[str, object]) -> object:
        raise ReadTimeoutError(endpoint_url="https://dynamodb.example")

    tables.links._client._make_api_call = call  # type: ignore[attr-defined]
    with pytest.raises(StorageError):
        ask(tables.links)

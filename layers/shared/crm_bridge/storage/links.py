"""Links: "this id in that system is that id in the other", stored in both directions.

A link is two rows, one under each of its ids. Where an id may have only one partner of that kind, the row's sort key
leaves the partner's id out, so that the table itself refuses a second one, in whichever order two writers arrive.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from itertools import batched, permutations
from typing import TYPE_CHECKING

from crm_bridge.errors import StorageError
from crm_bridge.ids import canonical
from crm_bridge.storage.dynamodb import Item, Reading, deserialize, guarded, serialize

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import TransactWriteItemTypeDef

    from crm_bridge.responses import LinkedRecord


BATCH = 100
"""So many items DynamoDB gives at once by their keys."""
LONGEST_KEY = 2048
"""Bytes of a partition key that DynamoDB takes."""


@dataclass(frozen=True)
class Identity:
    """A record in some system: `Identity("illu", "site", "4711")`. The table's keys have its id's canonical form."""

    system: str
    entity: str
    id: str

    def is_same(self, other: "Identity") -> bool:
        """Return whether it is the same record, in whatever form the ids are."""
        return (self.system, self.entity) == (other.system, other.entity) and canonical(self.id) == canonical(other.id)

    def to_response(self) -> "LinkedRecord":
        return {"system": self.system, "entity": self.entity, "id": self.id}


class Cardinality(Enum):
    """How many right ids a left id may have, and how many left ids a right id."""

    ONE_TO_ONE = (1, 1)
    MANY_TO_ONE = (1, None)
    MANY_TO_MANY = (None, None)


@dataclass(frozen=True)
class Link:
    left: Identity
    right: Identity
    cardinality: Cardinality = Cardinality.ONE_TO_ONE


@dataclass(frozen=True)
class Partner:
    """What an identity is linked to, since when, and by which operation."""

    identity: Identity
    operation_id: str
    linked_at: datetime


@dataclass(frozen=True)
class _Row:
    identity: Identity
    partner: Identity
    exclusive: bool

    def key(self, tenant: str) -> dict[str, str]:
        partner = joined(self.partner.system, self.partner.entity)
        if not self.exclusive:
            partner = f"{partner}#{joined(canonical(self.partner.id))}"
        return {"identity": _partition(tenant, self.identity), "partner": partner}


UNLESS_ANOTHERS = "attribute_not_exists(#identity) OR operation_id = :operation_id"


@dataclass(frozen=True)
class Ties:
    """Deletes of the rows that an operation wrote: those of an identity, and those of its partners with one another."""

    own: "list[TransactWriteItemTypeDef]"
    others: "list[TransactWriteItemTypeDef]"


class Links:
    """The link table. One instance per execution environment; threads may share it."""

    def __init__(self, client: "DynamoDBClient", table: str) -> None:
        self._client = client
        self._table = table

    def of(self, tenant: str, identity: Identity) -> list[Partner]:
        """Everything that `identity` is linked to. Raises StorageError."""
        if len(_partition(tenant, identity).encode()) > LONGEST_KEY:
            return []
        pages = self._client.get_paginator("query").paginate(
            TableName=self._table,
            ConsistentRead=True,
            KeyConditionExpression="#identity = :identity",
            ExpressionAttributeNames={"#identity": "identity"},
            ExpressionAttributeValues=serialize({":identity": _partition(tenant, identity)}),
        )
        with guarded():
            return [_partner(deserialize(item)) for page in pages for item in page["Items"]]

    def one(self, tenant: str, identity: Identity, system: str, entity: str) -> Identity | None:
        """The only partner of that kind that `identity` may have, if it has one. Raises StorageError."""
        one = self.reading(tenant, identity, system, entity)
        with guarded():
            one.item = self._client.get_item(TableName=one.table, Key=one.key, ConsistentRead=True).get("Item", {})
        return one.value

    def reading(self, tenant: str, identity: Identity, system: str, entity: str) -> Reading[Identity | None]:
        """Return what `one` reads, for `read_at_once`."""
        key = _Row(identity, Identity(system, entity, ""), exclusive=True).key(tenant)
        return Reading(self._table, serialize(key), _identity)

    def taken(self, tenant: str, groups: Sequence[Sequence[Link]], operation_id: str) -> list[bool]:
        """Of each group of links, whether another operation holds an exclusive end of one. Raises StorageError."""
        keys = [{_key(row, tenant) for row in _rows(links) if row.exclusive} for links in groups]
        held: set[tuple[str, str]] = set()
        for some in batched(sorted(set().union(*keys)), BATCH, strict=False):
            wanted = [serialize({"identity": identity, "partner": partner}) for identity, partner in some]
            with guarded():
                response = self._client.batch_get_item(
                    RequestItems={self._table: {"Keys": wanted, "ConsistentRead": True}}
                )
            if response["UnprocessedKeys"]:
                raise StorageError("The bridge's storage is throttled. Send the same request again.")
            items = [deserialize(item) for item in response["Responses"][self._table]]
            held |= {(str(i["identity"]), str(i["partner"])) for i in items if i["operation_id"] != operation_id}
        return [not held.isdisjoint(some) for some in keys]

    def ties(self, tenant: str, identity: Identity) -> "dict[str, Ties]":
        """Return what it takes to untie `identity`, by the operation that tied it. Only for links of many to many.

        Raises StorageError.
        """
        by_operation: dict[str, list[Identity]] = {}
        for partner in self.of(tenant, identity):
            by_operation.setdefault(partner.operation_id, [identity]).append(partner.identity)
        return {
            operation_id: Ties(
                own=[self._delete(tenant, _Row(*p, exclusive=False), operation_id) for p in pairs if identity in p],
                others=[
                    self._delete(tenant, _Row(*p, exclusive=False), operation_id) for p in pairs if identity not in p
                ],
            )
            for operation_id, members in by_operation.items()
            for pairs in [list(permutations(members, 2))]
        }

    def releases(
        self, tenant: str, links: Sequence[tuple[Identity, Identity]], operation_id: str
    ) -> "list[TransactWriteItemTypeDef]":
        """Deletes of the rows of `links` that this operation wrote and still holds. Raises StorageError."""
        rows = [
            _Row(one, other, exclusive)
            for left, right in links
            for one, other in ((left, right), (right, left))
            for exclusive in (True, False)
        ]
        keys = {tuple(row.key(tenant).values()): row for row in rows}
        if not keys:
            return []
        with guarded():
            response = self._client.batch_get_item(
                RequestItems={
                    self._table: {"Keys": [serialize(row.key(tenant)) for row in keys.values()], "ConsistentRead": True}
                }
            )
        if response["UnprocessedKeys"]:
            raise StorageError("The bridge's storage is throttled. Send the same request again.")
        items = [deserialize(item) for item in response["Responses"][self._table]]
        held = [keys[str(i["identity"]), str(i["partner"])] for i in items if i["operation_id"] == operation_id]
        return [self._delete(tenant, row, operation_id) for row in held]

    def write(self, writes: "Sequence[TransactWriteItemTypeDef]") -> None:
        """All of it. Raises StorageError, also if another operation has tied something of it since."""
        with guarded():
            self._client.transact_write_items(TransactItems=writes)

    def _delete(self, tenant: str, row: _Row, operation_id: str) -> "TransactWriteItemTypeDef":
        """Only what this operation tied: a write that took long must not untie what another has tied since."""
        return {
            "Delete": {
                "TableName": self._table,
                "Key": serialize(row.key(tenant)),
                "ConditionExpression": UNLESS_ANOTHERS,
                "ExpressionAttributeNames": {"#identity": "identity"},
                "ExpressionAttributeValues": serialize({":operation_id": operation_id}),
            }
        }

    def puts(
        self, tenant: str, links: Sequence[Link], operation_id: str, now: float
    ) -> "Iterator[TransactWriteItemTypeDef]":
        """The writes that store `links`, for the transaction that settles their operation."""
        for row in _rows(links):
            item = {
                **row.key(tenant),
                "partner_system": row.partner.system,
                "partner_entity": row.partner.entity,
                "partner_id": row.partner.id,
                "operation_id": operation_id,
                "linked_at": int(now),
            }
            # A row that is not exclusive has both ids in its key: whoever writes it writes the same link.
            yield (
                {
                    "Put": {
                        "TableName": self._table,
                        "Item": serialize(item),
                        "ConditionExpression": UNLESS_ANOTHERS,
                        "ExpressionAttributeNames": {"#identity": "identity"},
                        "ExpressionAttributeValues": serialize({":operation_id": operation_id}),
                    }
                }
                if row.exclusive
                else {"Put": {"TableName": self._table, "Item": serialize(item)}}
            )


def _rows(links: Sequence[Link]) -> Iterator[_Row]:
    for link in links:
        rights, lefts = link.cardinality.value
        yield _Row(link.left, link.right, exclusive=rights == 1)
        yield _Row(link.right, link.left, exclusive=lefts == 1)


def _key(row: _Row, tenant: str) -> tuple[str, str]:
    key = row.key(tenant)
    return key["identity"], key["partner"]


def _partition(tenant: str, identity: Identity) -> str:
    return joined(tenant, identity.system, identity.entity, canonical(identity.id))


def joined(*parts: str) -> str:
    """One key out of several parts. Escapes only what could make two lists of parts the same: keys stay readable."""
    return "#".join([part.replace("%", "%25").replace("#", "%23") for part in parts])


def parted(key: str) -> list[str]:
    """Return the parts that were `joined`."""
    return [part.replace("%23", "#").replace("%25", "%") for part in key.split("#")]


def _identity(item: Item) -> Identity | None:
    return _partner(deserialize(item)).identity if item else None


def _partner(item: dict[str, object]) -> Partner:
    return Partner(
        Identity(str(item["partner_system"]), str(item["partner_entity"]), str(item["partner_id"])),
        str(item["operation_id"]),
        datetime.fromtimestamp(int(str(item["linked_at"])), UTC),
    )

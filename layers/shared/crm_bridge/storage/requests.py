"""The table of requests: those that were authenticated and then refused, and the invalid events of sources.

A request is in an item of its tenant, sorted by time. A pointer for each id that it carried leads to it, and for an
event in quarantine another one, so that the same payload of an event is there once. All of them expire.
"""

import hashlib
import json
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError
from pydantic import BaseModel, ConfigDict

from crm_bridge.errors import FieldError, StorageError
from crm_bridge.ids import canonical
from crm_bridge.storage.api_keys import KEY_FORM
from crm_bridge.storage.dynamodb import (
    deserialize,
    existing,
    guarded,
    read_many,
    reasons_of,
    serialize,
    through_conflicts,
)
from crm_bridge.storage.operation import as_time

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef, WriteRequestTypeDef

    from crm_bridge import responses

MOST_IDS, LONGEST_ID = 10, 200
"""The most ids of a request by which it is found, and the most characters of one."""
MOST_LOOKED_AT = 1000
"""Values of a body among which ids are looked for."""
MOST_QUERIES = 10
"""Queries for one page, if few requests fit."""
BATCH = 25
"""Items that one BatchWriteItem takes."""
LARGEST_SHAPE = 10_000
"""Characters of a shape as JSON; a larger one is not stored."""
DAY = 24 * 3600
_ID_NAMES = ("_id", "-id", "_key", "_number", "_ref")
_ID_ENDS = ("Id", "ID", "Key", "Number", "Ref")
_WORD = re.compile("[A-Z]?[a-z0-9]+|[A-Z0-9]+(?![a-z])")
_OF_CREDENTIALS = frozenset(("api", "auth", "bearer", "password", "secret", "session", "token"))
"""Words of names such as `api_key` and `SessionId`."""
_OF_KEYS = frozenset(("access", "encryption", "license", "private", "signing"))
"""Words that tell a credential in a name that has `key` in it, such as `accessKeyId`."""
_OF_PEOPLE = frozenset(("card", "cell", "fax", "license", "mobile", "passport", "phone", "telephone"))
"""Words of names of numbers such as `phoneNumber`: no record is known by them."""


class RequestState(StrEnum):
    REFUSED = "refused"
    QUARANTINED = "quarantined"
    SENT = "sent"
    DISCARDED = "discarded"


class StoredRequest(BaseModel):
    """A request that was refused, or an event in quarantine. Times are epoch seconds."""

    model_config = ConfigDict(frozen=True, defer_build=True, hide_input_in_errors=True)

    at: str
    """Its place in time, and its id without the prefix."""
    tenant: str
    state: RequestState
    received_at: int
    route: str
    sender: str
    """The API key's label, or the source's name."""
    ids: tuple[str, ...] = ()
    """At most MOST_IDS."""
    status: int
    """What its caller was answered; of an event in quarantine, what it would have been."""
    problem: str
    """The kind of problem, as at the end of its `type`."""
    errors: tuple[FieldError, ...] = ()
    shape: str | None = None
    """The body as JSON, with kinds in place of values."""
    request_id: str
    """By which the log knows it."""
    operation_id: str | None = None
    """Of a request: the operation that it was about. Of an event that was sent again: the operation that it became."""
    mapping: str | None = None
    """What did not make a valid command of it."""
    event_key: str | None = None
    """What names an event at its source."""
    content_hash: str | None = None
    """Of an event in quarantine: a hash of what it says."""
    payload: str | None = None
    """Of an event in quarantine, as JSON."""
    changed_by: str | None = None
    expires_at: int

    @property
    def id(self) -> str:
        return f"req_{self.at}"

    def to_response(self) -> "responses.RequestSummary":
        """Return it as an element of a list."""
        return {
            "id": self.id,
            "state": self.state,
            "received_at": as_time(self.received_at),
            "route": self.route,
            "sender": self.sender,
            "ids": list(self.ids),
            "status": self.status,
            "problem": self.problem,
            "errors": [error.to_response() for error in self.errors],
            "request_id": self.request_id,
            "operation_id": self.operation_id,
        }


class Requests:
    """One instance per execution environment; threads may share it. All methods raise StorageError."""

    def __init__(self, client: "DynamoDBClient", table: str, clock: Callable[[], float]) -> None:
        self._client = client
        self._table = table
        self._clock = clock

    def new(self, tenant: str, state: RequestState, days: int, **members: Any) -> StoredRequest:
        """Return a request that has come in now, and that is kept for so many days."""
        now = self._clock()
        at = f"{place_in_time(now)}{secrets.token_hex(9)}"
        expires_at = int(now) + days * DAY
        return StoredRequest(at=at, tenant=tenant, state=state, received_at=int(now), expires_at=expires_at, **members)

    def keep(self, request: StoredRequest) -> None:
        """Store a request that was refused, in one round trip."""
        self._write([{"PutRequest": {"Item": item}} for item in self._items(request)])

    def quarantine(self, request: StoredRequest) -> bool:
        """Store an invalid event, unless the same one is there already, whatever became of it. Return whether it was.

        One with another payload is stored as well: it may be a correction, and is kept nowhere else.
        One transaction, so that it is there with all that leads to it.
        """
        marker = self._pointer(request, _event_place(request), "event")
        puts = [{"Put": {"TableName": self._table, "Item": item}} for item in self._items(request)]
        first = {
            "Put": {
                "TableName": self._table,
                "Item": marker,
                "ConditionExpression": "attribute_not_exists(place)",
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            }
        }
        transaction: Any = [first, *puts]
        with guarded():
            try:
                through_conflicts(lambda: self._client.transact_write_items(TransactItems=transaction))
            except ClientError as error:
                there = deserialize(reasons_of(error)[0].get("Item", {}))
                return there.get("leads_to") == request.at  # the AWS client has repeated its own first success
        return True

    def get(self, tenant: str, request_id: str) -> StoredRequest | None:
        key = _key(_tenant_place(tenant), request_id.removeprefix("req_"))
        with guarded():
            answer = self._client.get_item(TableName=self._table, Key=key, ConsistentRead=True)
        return _as_request(answer["Item"]) if "Item" in answer else None

    def listed(
        self, tenant: str, *, limit: int, first: str, last: str, filters: Mapping[str, object], after: str | None
    ) -> tuple[list[StoredRequest], str | None]:
        """Return a page of the requests between two places in time, the newest first, and where the list goes on.

        `filters` are attributes and their values. A page may have fewer than `limit`.
        """
        if after is not None and not first <= after <= last:  # DynamoDB refuses such a place
            return [], None
        values = {
            ":place": _tenant_place(tenant),
            ":first": first,
            ":last": last,
            **{f":{name}": to for name, to in filters.items()},
        }
        asked: dict[str, Any] = {
            "TableName": self._table,
            "KeyConditionExpression": "place = :place AND #at BETWEEN :first AND :last",
            "ExpressionAttributeNames": {"#at": "at", **{f"#{name}": name for name in filters}},
            "ExpressionAttributeValues": serialize(values),
            "ScanIndexForward": False,
            "ConsistentRead": True,
        }
        if filters:
            asked["FilterExpression"] = " AND ".join(f"#{name} = :{name}" for name in filters)
        found: list[StoredRequest] = []
        for _ in range(MOST_QUERIES):
            if after:
                asked["ExclusiveStartKey"] = _key(_tenant_place(tenant), after)
            with guarded():
                page = self._client.query(**asked, Limit=limit - len(found))
            found += map(_as_request, page["Items"])
            after = str(deserialize(page["LastEvaluatedKey"])["at"]) if "LastEvaluatedKey" in page else None
            if after is None or len(found) == limit:
                break
        return found, after

    def of(self, tenant: str, carried: str, *, limit: int | None = None) -> list[StoredRequest]:
        """Return the requests that carried an id, the newest first; at most `limit`. A long id is compared in part."""
        asked: dict[str, Any] = {
            "TableName": self._table,
            "KeyConditionExpression": "place = :place",
            "ExpressionAttributeValues": serialize({":place": _id_place(tenant, carried[:LONGEST_ID])}),
            "ScanIndexForward": False,
            "ConsistentRead": True,
        }
        places: list[str] = []
        while limit is None or len(places) < limit:
            with guarded():
                page = self._client.query(**asked)
            places += [str(deserialize(item)["leads_to"]) for item in page["Items"]]
            if "LastEvaluatedKey" not in page:
                break
            asked["ExclusiveStartKey"] = page["LastEvaluatedKey"]
        keys = [_key(_tenant_place(tenant), at) for at in places[:limit]]
        found = map(_as_request, read_many(self._client, self._table, keys))
        return sorted(found, key=lambda one: one.at, reverse=True)

    def change(self, request: StoredRequest, state: RequestState, by: str, operation_id: str | None = None) -> bool:
        """End the quarantine of an event, whose payload is deleted. False if somebody else has ended it."""
        changes = {":state": state.value, ":by": by, ":operation": operation_id}
        operation = ", operation_id = :operation" if operation_id else ""
        with guarded():
            try:
                self._client.update_item(
                    TableName=self._table,
                    Key=_key(_tenant_place(request.tenant), request.at),
                    UpdateExpression=f"SET #state = :state, changed_by = :by{operation} REMOVE payload",
                    ConditionExpression="#state = :quarantined",
                    ExpressionAttributeNames={"#state": "state"},
                    ExpressionAttributeValues=serialize({**changes, ":quarantined": RequestState.QUARANTINED.value}),
                )
            except ClientError as error:
                existing(error)
                return False
        return True

    def erase(self, request: StoredRequest) -> None:
        """Delete a request and all that leads to it."""
        keys = [{"place": item["place"], "at": item["at"]} for item in self._items(request)]
        if request.event_key:
            keys.append(_key(_event_place(request), "event"))
        self._write([{"DeleteRequest": {"Key": key}} for key in keys])

    def _items(self, request: StoredRequest) -> "list[dict[str, AttributeValueTypeDef]]":
        item = request.model_dump(mode="json", exclude_none=True)
        places = dict.fromkeys(_id_place(request.tenant, one) for one in request.ids)
        return [
            {**_key(_tenant_place(request.tenant), request.at), **serialize(item)},
            *(self._pointer(request, place, request.at) for place in places),
        ]

    def _pointer(self, request: StoredRequest, place: str, at: str) -> "dict[str, AttributeValueTypeDef]":
        return {**_key(place, at), **serialize({"leads_to": request.at, "expires_at": request.expires_at})}

    def _write(self, writes: "Sequence[WriteRequestTypeDef]") -> None:
        left: Any = list(writes)
        with guarded():
            for _ in range(3):
                answer = self._client.batch_write_item(RequestItems={self._table: left[:BATCH]})
                left = answer.get("UnprocessedItems", {}).get(self._table, [])
                if not left:
                    return
        raise StorageError("The bridge's storage did not answer (throttled). Send the same request again.")


def ids_in(body: object, known: Iterable[str] = ()) -> tuple[str, ...]:
    """Return those that are `known`, and the ids in a JSON value: members whose names end as those of ids do.

    The outermost come first. A credential is no id, and an API key of the bridge is none under any name.
    """
    found = {one[:LONGEST_ID]: None for one in known if not KEY_FORM.fullmatch(one)}
    left: list[object] = [body]
    for value in left:  # which grows meanwhile
        if isinstance(value, dict):
            found |= {str(one)[:LONGEST_ID]: None for name, one in value.items() if _is_id(name, one)}
        members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        left += [one for one in members if isinstance(one, dict | list)][: MOST_LOOKED_AT - len(left)]
        if len(found) >= MOST_IDS:
            break
    return tuple(found)[:MOST_IDS]


def shape_as_json(shape: object) -> str | None:
    """Return a shape as it is stored; None if it is too large."""
    text = json.dumps(shape, ensure_ascii=False)
    return text if len(text) <= LARGEST_SHAPE else None


def place_in_time(seconds: float) -> str:
    """Return the first place of this time (epoch seconds)."""
    return f"{max(0, int(seconds * 1_000_000)):014x}"


def _is_id(name: str, value: object) -> bool:
    is_text = isinstance(value, str) and bool(value.strip()) and not KEY_FORM.fullmatch(value.strip())
    is_scalar = is_text or (isinstance(value, int) and value is not True)
    return (
        is_scalar
        and value is not False
        and (name.casefold() == "id" or name.casefold().endswith(_ID_NAMES) or name.endswith(_ID_ENDS))
        and not _is_private([word.casefold() for word in _WORD.findall(name)])
    )


def _is_private(words: Sequence[str]) -> bool:
    """Return whether the words of a name are those of a credential, or of a person's own number."""
    is_key = "key" in words and not _OF_KEYS.isdisjoint(words)
    is_persons = words[-1:] == ["number"] and not _OF_PEOPLE.isdisjoint(words)
    return is_key or is_persons or not _OF_CREDENTIALS.isdisjoint(words)


def _tenant_place(tenant: str) -> str:
    return f"{tenant}#"


def _id_place(tenant: str, carried: str) -> str:
    return f"{tenant}#id#{canonical(carried.strip())}"


def _event_place(request: StoredRequest) -> str:
    named = "\0".join(filter(None, (request.sender, request.event_key, request.content_hash)))
    return f"{request.tenant}#event#{hashlib.sha256(named.encode()).hexdigest()}"


def _key(place: str, at: str) -> "dict[str, AttributeValueTypeDef]":
    return serialize({"place": place, "at": at})


def _as_request(item: "Mapping[str, AttributeValueTypeDef]") -> StoredRequest:
    return StoredRequest.model_validate(deserialize(item))

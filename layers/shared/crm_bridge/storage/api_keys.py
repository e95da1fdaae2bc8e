"""API keys: which tenant a caller belongs to, and what it may do."""

import base64
import hashlib
import math
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from crm_bridge.cache import keep_newest
from crm_bridge.errors import TooManyRequestsError, UnauthenticatedError
from crm_bridge.storage.dynamodb import deserialize, guarded, serialize
from crm_bridge.token_buckets import TokenBuckets

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

READ_SCOPE = "operations:read"
RESOLVE_SCOPE = "operations:resolve"
PAYLOAD_SCOPE = "operations:payload"
"""With READ_SCOPE: what the CRM sent, and what candidates at the vendor are called."""
KEY_MAX_AGE = 60.0
"""Seconds for which a key that was found valid is believed: so long a revoked key may still work."""
REFUSED_MAX_AGE = 10.0
"""Seconds for which a key that was refused is refused without a read: so long a key that is new may not work yet."""
KEY_CACHE = 1000
"""The most keys that are remembered as valid, and the most that are remembered as refused."""
KEY_FORM = re.compile("crmb_[A-Za-z0-9_-]{43}")
"""The form of all keys that `new_api_key` makes."""
_ASK = {"WWW-Authenticate": "Bearer"}


@dataclass(frozen=True)
class Caller:
    """The sender of a request: the tenant that the API key belongs to, and its scopes."""

    tenant: str
    scopes: frozenset[str]
    label: str
    key_hash: str = field(default="", repr=False, compare=False)


def new_api_key() -> str:
    """Return a new key: 256 random bits behind a prefix by which a scanner for leaked secrets can know it."""
    return f"crmb_{secrets.token_urlsafe(32)}"


def hash_api_key(key: str) -> str:
    # A plain digest is enough: the key is random and long, not a password that could be guessed from its hash.
    return hashlib.sha256(key.encode()).hexdigest()


class ApiKeys:
    """The table of API keys. Threads may share it.

    `headers` are the names, in lower case, under which a CRM may send its key if it cannot send `Authorization`.
    `buckets` limit how many requests each key may send.
    """

    def __init__(
        self,
        client: "DynamoDBClient",
        table: str,
        headers: tuple[str, ...],
        buckets: TokenBuckets,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._table = table
        self._headers = headers
        self._buckets = buckets
        self._clock = clock
        self._cache: dict[str, _CachedCaller] = {}
        self._refused: dict[str, float] = {}

    def caller(self, headers: Mapping[str, str]) -> Caller:
        """Return the sender of a request with these headers (names in lower case).

        Raises UnauthenticatedError if there is no key, or it is unknown, disabled or expired; StorageError.
        """
        key = self._key(headers)
        if not KEY_FORM.fullmatch(key):
            raise _refusal()
        hashed, now = hash_api_key(key), self._clock()
        cached = self._cache.get(hashed)
        # A clock that was set back would keep an entry for longer than its time.
        if cached and now < cached.until <= now + KEY_MAX_AGE:
            return cached.caller
        if now < self._refused.get(hashed, 0) <= now + REFUSED_MAX_AGE:
            raise _refusal()
        try:
            cached = self._read(hashed, now)
        except UnauthenticatedError:
            keep_newest(self._refused, hashed, now + REFUSED_MAX_AGE, KEY_CACHE)
            raise
        keep_newest(self._cache, hashed, cached, KEY_CACHE)
        return cached.caller

    def take_token(self, caller: Caller) -> None:
        """Raises TooManyRequestsError if the caller's key has sent more than it may."""
        if wait := self._buckets.take(caller.key_hash):
            raise TooManyRequestsError(
                "This API key sends too many requests. Send the same request again after the time in Retry-After.",
                headers={"Retry-After": str(math.ceil(wait))},
            )

    def _key(self, headers: Mapping[str, str]) -> str:
        for name in ("authorization", *self._headers):
            # API Gateway joins a header that was sent several times, and no key has a comma in it.
            values = headers.get(name, "").split(",")
            found = {_credential(value) if name == "authorization" else value.strip() for value in values} - {""}
            if len(found) > 1:
                raise UnauthenticatedError(f"Send one API key: the header {name} has several.", headers=_ASK)
            if found:
                return found.pop()
        ways = " or ".join(("'Authorization: Bearer KEY'", "HTTP Basic", *(f"the header {h}" for h in self._headers)))
        raise UnauthenticatedError(f"Send an API key: {ways}.", headers=_ASK)

    def _read(self, hashed: str, now: float) -> "_CachedCaller":
        with guarded():
            # Consistent, so that a key works as soon as it is made.
            response = self._client.get_item(
                TableName=self._table, Key={"key_hash": {"S": hashed}}, ConsistentRead=True
            )
        item = deserialize(response.get("Item", {}))
        expires = int(str(item["expires_at"])) if "expires_at" in item else None
        if not item or item.get("disabled") or (expires is not None and expires <= now):
            raise _refusal()
        scopes = item.get("scopes")
        scopes = frozenset(str(scope) for scope in scopes) if isinstance(scopes, set | list) else frozenset()
        until = now + KEY_MAX_AGE if expires is None else min(now + KEY_MAX_AGE, expires)
        return _CachedCaller(Caller(str(item["tenant"]), scopes, str(item.get("label", "")), hashed), until)

    def add(
        self,
        key: str,
        tenant: str,
        scopes: frozenset[str],
        label: str,
        *,
        expires_at: int | None = None,
        created_by: str = "",
    ) -> None:
        """Store a new key; `created_by` is the ARN of the AWS identity that makes it. Raises StorageError."""
        item = {
            "key_hash": hash_api_key(key),
            "tenant": tenant,
            "scopes": set(scopes),
            "label": label,
            "created_at": int(self._clock()),
            "created_by": created_by,
            "expires_at": expires_at,
        }
        with guarded():
            self._client.put_item(TableName=self._table, Item=serialize(item))

    def of(self, tenant: str) -> list["ApiKey"]:
        """Return a tenant's keys, the oldest first. It reads the whole table, which is small. Raises StorageError."""
        pages = self._client.get_paginator("scan").paginate(
            TableName=self._table,
            ConsistentRead=True,
            FilterExpression="tenant = :tenant",
            ExpressionAttributeValues=serialize({":tenant": tenant}),
        )
        with guarded():
            items = [deserialize(item) for page in pages for item in page["Items"]]
        return sorted((ApiKey.model_validate(item) for item in items), key=lambda key: (key.created_at, key.key_hash))

    def revoke(self, key: "ApiKey") -> None:
        """Refuse the key from now on, at the latest in KEY_MAX_AGE seconds. Raises StorageError."""
        with guarded():
            self._client.update_item(
                TableName=self._table,
                Key=serialize({"key_hash": key.key_hash}),
                UpdateExpression="SET disabled = :true",
                ExpressionAttributeValues=serialize({":true": True}),
            )


class ApiKey(BaseModel):
    """A key as the table has it. All times are epoch seconds."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    key_hash: str
    tenant: str
    scopes: frozenset[str] = frozenset()
    label: str = ""
    created_at: int = 0
    created_by: str = ""
    expires_at: int | None = None
    disabled: bool = False


def _refusal() -> UnauthenticatedError:
    return UnauthenticatedError("The API key is unknown, disabled or expired. Ask for a new one.", headers=_ASK)


def _credential(authorization: str) -> str:
    """Return the key in one value of Authorization; empty if there is none. Raises UnauthenticatedError."""
    scheme, _, credentials = authorization.strip().partition(" ")
    match scheme.lower():
        case "bearer":
            return credentials.strip()
        case "basic":  # the user's name is free, in whatever charset (RFC 7617): the key alone says who it is
            try:
                pair = base64.b64decode(credentials.strip(), validate=True)
            except ValueError:
                raise UnauthenticatedError("The Basic credentials cannot be read.", headers=_ASK) from None
            return pair.partition(b":")[2].decode(errors="replace")
    return ""


@dataclass(frozen=True)
class _CachedCaller:
    caller: Caller
    until: float = field(repr=False)

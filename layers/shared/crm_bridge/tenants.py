"""Tenants: their settings out of Secrets Manager, and the API keys by which a caller is one of them."""

import base64
import hashlib
import math
import re
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

from aws_lambda_powertools.utilities.parameters import GetParameterError, SecretsProvider
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import BaseModel, ConfigDict, ValidationError

from crm_bridge.dynamodb import deserialize, guarded, serialize
from crm_bridge.errors import NotConfiguredError, StorageError, TooManyRequestsError, UnauthenticatedError
from crm_bridge.public import local_hosts
from crm_bridge.settings import Tenant, parse_tenant
from crm_bridge.token_buckets import TokenBuckets
from crm_bridge.vendors import PART_OF

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_secretsmanager import SecretsManagerClient

SECRET_MAX_AGE = 300
"""Seconds for which a tenant's settings are kept."""
NO_SECRET = ("ResourceNotFoundException", "InvalidRequestException")
"""What AWS says of a secret that is not there, and of one that is marked for deletion."""
KEY_MAX_AGE = 60.0
"""Seconds for which a key that was found valid is believed: so long a revoked key may still work."""
REFUSED_MAX_AGE = 10.0
"""Seconds for which a key that was refused is refused without a read: so long a key that is new may not work yet."""
KEY_CACHE = 1000
"""The most keys that are remembered as valid, and the most that are remembered as refused."""
KEY_FORM = re.compile("crmb_[A-Za-z0-9_-]{43}")
"""What `new_api_key` makes."""
_ASK = {"WWW-Authenticate": "Bearer"}


class _Secrets(SecretsProvider):
    """Powertools' provider, which here keeps parsed settings and not their text.

    Its clock is the wall clock, so that a secret also ages while the function is frozen.
    """

    def __init__(self, client: "SecretsManagerClient", prefix: str) -> None:
        super().__init__(boto3_client=client)
        self._prefix = prefix

    def has_not_expired_in_cache(self, key: tuple[Any, ...]) -> bool:
        kept = self.store.get(key)
        now = datetime.now()  # noqa: DTZ005 - what Powertools compares with
        # A clock that was set back since would keep it for longer than its time.
        return kept is not None and now <= kept.ttl <= now + timedelta(seconds=SECRET_MAX_AGE)

    def fetch_from_cache(self, key: tuple[Any, ...]) -> Any:
        kept = self.store.get(key)
        return kept.value if kept else self._get(key[0])  # another thread has dropped it since it was looked for

    def _part_of(self, name: str) -> str:
        """Return the part of a tenant's document that is in a secret: `crm-bridge/<stage>/<part>/<tenant>`."""
        return name.removeprefix(self._prefix).partition("/")[0]

    def drop(self, name: str) -> None:
        self.store.pop(self._build_cache_key(name), None)

    def _get(self, name: str, **_: Any) -> Any:
        """Return the settings in a secret. Raises NotConfiguredError, StorageError."""
        try:
            document = self.client.get_secret_value(SecretId=name).get("SecretString", "")  # none if it is binary
        except (ClientError, BotoCoreError) as error:
            if isinstance(error, ClientError) and error.response["Error"]["Code"] in NO_SECRET:
                raise NotConfiguredError(f"There is no secret {name}. Create it, then send again.") from None
            raise StorageError("Secrets Manager did not respond. Send the same request again.") from None
        try:
            return parse_tenant(document, local_hosts(), self._part_of(name))
        except ValidationError as error:
            fields = ", ".join(".".join(str(part) for part in e["loc"]) or "the document" for e in error.errors())
            raise NotConfiguredError(f"The secret {name} is not valid: check {fields}.") from None


class Tenants:
    """Reads parts of tenants from Secrets Manager, each at most once in five minutes. Threads may share it."""

    def __init__(self, client: "SecretsManagerClient", prefix: str) -> None:
        self._secrets = _Secrets(client, prefix)
        self._prefix = prefix

    def get(self, name: str, function: str, *, fresh: bool = False) -> Tenant:
        """Return the part of a tenant's settings that a function needs; the rest is in secrets that others read.

        `fresh` reads past the cache. Raises NotConfiguredError, StorageError.
        """
        secret = f"{self._prefix}{PART_OF[function]}/{name}"
        try:
            return cast("Tenant", self._secrets.get(secret, max_age=SECRET_MAX_AGE, force_fetch=fresh))
        except GetParameterError as error:  # which is raised instead of whatever went wrong
            cause = error.__context__
            if isinstance(cause, NotConfiguredError):
                self._secrets.drop(secret)  # a secret that is gone or wrong is not used any further
            raise cause or error from None


@dataclass(frozen=True)
class Caller:
    """Who sent a request: the tenant that the API key belongs to, and what it may do."""

    tenant: str
    scopes: frozenset[str]
    label: str
    key_hash: str = field(default="", repr=False, compare=False)


def new_api_key() -> str:
    """256 random bits behind a prefix by which a scanner for leaked secrets can know it."""
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
        """Who sent a request with these headers (names in lower case).

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
            _keep(self._refused, hashed, now + REFUSED_MAX_AGE)
            raise
        _keep(self._cache, hashed, cached)
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
            answer = self._client.get_item(TableName=self._table, Key={"key_hash": {"S": hashed}}, ConsistentRead=True)
        item = deserialize(answer.get("Item", {}))
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
        """A tenant's keys, the oldest first. It reads the whole table, which is small. Raises StorageError."""
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
        """Whoever has it is refused from now on, at the latest in KEY_MAX_AGE seconds. Raises StorageError."""
        with guarded():
            self._client.update_item(
                TableName=self._table,
                Key=serialize({"key_hash": key.key_hash}),
                UpdateExpression="SET disabled = :true",
                ExpressionAttributeValues=serialize({":true": True}),
            )


class ApiKey(BaseModel):
    """What the table holds of a key. All times are epoch seconds."""

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


def _keep[T](known: dict[str, T], key: str, value: T) -> None:
    """Remember `value`, and forget the oldest of more than KEY_CACHE."""
    known.pop(key, None)  # so that the newest comes last
    known[key] = value
    if len(known) > KEY_CACHE:
        with suppress(StopIteration, KeyError, RuntimeError):  # another thread was quicker
            del known[next(iter(known))]


def _credential(authorization: str) -> str:
    """The key in one value of Authorization; empty if there is none. Raises UnauthenticatedError."""
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

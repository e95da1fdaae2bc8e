"""Tenants: their settings and secrets out of Secrets Manager, and the API keys by which a caller is one of them."""

import base64
import hashlib
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

from aws_lambda_powertools.utilities.parameters.exceptions import GetParameterError
from aws_lambda_powertools.utilities.parameters.secrets import SecretsProvider
from botocore.exceptions import ClientError
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, ValidationError

from crm_bridge.dynamodb import deserialize, guarded, serialize
from crm_bridge.errors import NotConfiguredError, StorageError, UnauthenticatedError
from crm_bridge.mapping import Mappings

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_secretsmanager import SecretsManagerClient

SECRET_MAX_AGE = 300
KEY_MAX_AGE = 60.0
"""Seconds for which a key that was found valid is believed: so long a revoked key may still work."""
KEY_CACHE = 1000
_ASK = {"WWW-Authenticate": "Bearer"}
LOCAL_HOSTS = frozenset({"127.0.0.1", "localhost", "host.docker.internal"})


def _vendor_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOCAL_HOSTS):
        raise ValueError("must be an https address (http only for this machine)")
    if not parts.hostname or parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("must be scheme, host and path only")
    return value.rstrip("/")


def _header_value(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if not text or not text.isascii() or not text.isprintable() or text != text.strip():
        raise ValueError("must be printable ASCII without surrounding spaces")
    return value


def _list_path(value: str) -> str:
    if not value.startswith("/") or set(re.findall(r"\{(.*?)\}", value)) - {"org_id", "name"}:
        raise ValueError("must begin with / and have no placeholders but {org_id} and {name}")
    return value


def _login_part(value: str) -> str:
    if not re.fullmatch(r"[!-~]+", value) or set(value) & {"@", ":"}:
        raise ValueError("must be printable ASCII without spaces, @ and :")
    return value


def _login_secret(value: SecretStr) -> SecretStr:
    if not value.get_secret_value():
        raise ValueError("must not be empty")
    return value


type VendorUrl = Annotated[str, AfterValidator(_vendor_url)]
type ListPath = Annotated[str, AfterValidator(_list_path)]
type HeaderSecret = Annotated[SecretStr, AfterValidator(_header_value)]
type LoginPart = Annotated[str, AfterValidator(_login_part)]
type LoginSecret = Annotated[SecretStr, AfterValidator(_login_secret)]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class IlluSettings(_Settings):
    """How to reach a tenant's illu organisation. Source: illu integration page, see docs/vendors.md."""

    base_url: VendorUrl = "https://api.illu.works"
    org_id: int = Field(gt=0)
    """The numeric Organization ID of illu's Admin Console."""
    api_key: HeaderSecret
    """Shown in illu's Admin Console; it dies with a password change of the admin that it belongs to."""
    site_list_path: ListPath | None = None
    """Address that lists sites, below base_url; `{org_id}` and `{name}` are filled in. illu documents none, so none is
    asked unless it is named here; without it a lost answer is put before a person."""
    job_list_path: ListPath | None = None
    """The same for jobs. Without it, or without `job_reference`, a job whose answer was lost is put before a person."""
    job_reference: bool = True
    """Whether the ticket is named at the end of a job's notes, by which the bridge recognises its own."""
    search_lag: int = Field(default=120, ge=30, le=86_400)
    """Seconds after which a new record is sure to be in that list, also if illu was slow to make it."""


class RevioSettings(_Settings):
    """How to reach a tenant's Rev.io account. Source: https://developers.rev.io/docs/basic-authentication"""

    base_url: VendorUrl = "https://restapi.rev.io/v1"
    username: LoginPart
    client_code: LoginPart
    """The sub-domain of the tenant's Rev.io site. It decides whose data are read and written."""
    password: LoginSecret
    subscription_key: HeaderSecret | None = None
    """Of Rev.io's API management, if the account has one: it goes along with the login, not in its place."""
    plural_paths: bool = False
    """Whether the resources are called `/IntegrationKeyLinks` and so on; Rev.io's pages use both forms."""
    calls_per_minute: int = Field(default=500, ge=10, le=500)
    """That one execution environment makes; Rev.io allows an account 500."""
    search_lag: int = Field(default=120, ge=30, le=86_400)
    """Seconds after which a new key link is sure to be found by a search."""


class IzzitUpSettings(_Settings):
    """How to reach a tenant's status page.

    Source: https://support.lewe.com/docs/izzitup-manual/editor-guide/rest-api/
    """

    base_url: VendorUrl
    """The address of the application, up to where `/api/services` begins; it often ends in `/public`."""
    user: Annotated[str, Field(min_length=1, max_length=200)]
    """Of an account that is used for nothing else: its password travels in the body and comes back in the answer."""
    password: LoginSecret


class Tenant(_Settings):
    """The JSON document that the secret `crm-bridge/<stage>/<tenant>` holds. A vendor that is not used is left out."""

    illu: IlluSettings | None = None
    revio: RevioSettings | None = None
    izzitup: IzzitUpSettings | None = None
    mappings: Mappings = Mappings()

    _document: SecretStr = PrivateAttr(SecretStr(""))

    @cached_property
    def version(self) -> str:
        """Tells whether the secret has changed, and nothing else about it: it is salted, and slow to compute."""
        document = self._document.get_secret_value().encode()
        return hashlib.scrypt(document, salt=b"crm-bridge tenant", n=2**14, r=8, p=1, dklen=16).hex()


@lru_cache(maxsize=256)
def parse_tenant(document: str) -> Tenant:
    """Raises ValidationError, whose text names fields but shows no values."""
    tenant = Tenant.model_validate_json(document)
    tenant._document = SecretStr(document)  # noqa: SLF001 - nobody else has the whole text
    return tenant


class Tenants:
    """Reads tenants out of Secrets Manager, at most once in five minutes each. Threads may share it."""

    def __init__(self, client: "SecretsManagerClient", prefix: str) -> None:
        self._provider = SecretsProvider(boto3_client=client)
        self._prefix = prefix

    def get(self, name: str, *, fresh: bool = False) -> Tenant:
        """`fresh` reads past the cache. Raises NotConfiguredError, StorageError."""
        try:
            document = self._provider.get(self._prefix + name, max_age=SECRET_MAX_AGE, force_fetch=fresh)
        except GetParameterError as error:
            cause = error.__context__
            if isinstance(cause, ClientError) and cause.response["Error"]["Code"] == "ResourceNotFoundException":
                raise NotConfiguredError(
                    f"There is no secret {self._prefix}{name}. Create it, then send again."
                ) from None
            raise StorageError("Secrets Manager did not answer. Send the same request again.") from None
        try:
            return parse_tenant(str(document))
        except ValidationError as error:
            fields = ", ".join(".".join(str(part) for part in e["loc"]) or "the document" for e in error.errors())
            raise NotConfiguredError(f"The secret {self._prefix}{name} is not valid: check {fields}.") from None


@dataclass(frozen=True)
class Caller:
    """Who sent a request: the tenant that the API key belongs to, and the flows that it may call."""

    tenant: str
    scopes: frozenset[str]
    label: str


def new_api_key() -> str:
    """256 random bits behind a prefix by which a scanner for leaked secrets can know it."""
    return f"crmb_{secrets.token_urlsafe(32)}"


def hash_api_key(key: str) -> str:
    # A plain digest is enough: the key is random and long, not a password that could be guessed from its hash.
    return hashlib.sha256(key.encode()).hexdigest()


class ApiKeys:
    """The table of API keys. Threads may share it.

    `headers` are the names, in lower case, under which a CRM may send its key if it cannot send `Authorization`.
    """

    def __init__(
        self,
        client: "DynamoDBClient",
        table: str,
        headers: tuple[str, ...] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._table = table
        self._headers = headers
        self._clock = clock
        self._cache: dict[str, _CachedCaller] = {}

    def caller(self, headers: Mapping[str, str]) -> Caller:
        """Who sent a request with these headers (names in lower case).

        Raises UnauthenticatedError if there is no key, or it is unknown, disabled or expired; StorageError.
        """
        hashed = hash_api_key(self._key(headers))
        now = self._clock()
        cached = self._cache.get(hashed)
        if cached is None or cached.until <= now:
            cached = self._read(hashed, now)
            if len(self._cache) >= KEY_CACHE:
                self._cache.clear()
            self._cache[hashed] = cached
        return cached.caller

    def _key(self, headers: Mapping[str, str]) -> str:
        scheme, _, credentials = headers.get("authorization", "").partition(" ")
        match scheme.lower():
            case "bearer":
                return credentials.strip()
            case "basic":  # the user's name is free: the key alone says who it is
                try:
                    return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
                except ValueError:
                    raise UnauthenticatedError("The Basic credentials cannot be read.", headers=_ASK) from None
        for name in self._headers:
            if key := headers.get(name):
                return key.strip()
        ways = " or ".join(("'Authorization: Bearer <key>'", "HTTP Basic", *(f"the header {h}" for h in self._headers)))
        raise UnauthenticatedError(f"Send an API key: {ways}.", headers=_ASK)

    def _read(self, hashed: str, now: float) -> "_CachedCaller":
        with guarded():
            answer = self._client.get_item(TableName=self._table, Key={"key_hash": {"S": hashed}})
        item = deserialize(answer.get("Item", {}))
        expires = int(str(item["expires_at"])) if "expires_at" in item else None
        if not item or item.get("disabled") or (expires is not None and expires <= now):
            raise UnauthenticatedError("The API key is unknown, disabled or expired. Ask for a new one.", headers=_ASK)
        scopes = item.get("scopes")
        scopes = frozenset(str(scope) for scope in scopes) if isinstance(scopes, set | list) else frozenset()
        until = now + KEY_MAX_AGE if expires is None else min(now + KEY_MAX_AGE, expires)
        return _CachedCaller(Caller(str(item["tenant"]), scopes, str(item.get("label", ""))), until)

    def add(self, key: str, tenant: str, scopes: frozenset[str], label: str, *, expires_at: int | None = None) -> None:
        """Raises StorageError."""
        item = {
            "key_hash": hash_api_key(key),
            "tenant": tenant,
            "scopes": set(scopes),
            "label": label,
            "created_at": int(self._clock()),
            "expires_at": expires_at,
        }
        with guarded():
            self._client.put_item(TableName=self._table, Item=serialize(item))


@dataclass(frozen=True)
class _CachedCaller:
    caller: Caller
    until: float = field(repr=False)

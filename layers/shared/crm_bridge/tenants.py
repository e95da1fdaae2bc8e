"""Tenants: their settings, out of Secrets Manager."""

import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

from aws_lambda_powertools.utilities.parameters import GetParameterError, SecretsProvider
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import ValidationError

from crm_bridge.cache import keep_newest
from crm_bridge.errors import NoSettingsError, NotConfiguredError, StorageError
from crm_bridge.outbound.public_addresses import local_hosts
from crm_bridge.settings import Tenant, parse_tenant
from crm_bridge.vendors import PART_OF

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

SECRET_MAX_AGE = 300
"""Seconds for which a tenant's settings are kept."""
MAPPING_MAX_AGE = 10
"""Seconds for which a mapping is used before it is read again: so long after it was stored, every function uses it."""
MISSING_MAX_AGE, MOST_MISSING = 60.0, 1000
"""Seconds for which `find` believes that a secret is missing, and the most that are remembered as missing."""
NO_SECRET = ("ResourceNotFoundException", "InvalidRequestException")
"""AWS's error codes for a secret that is not there, and for one that is marked for deletion."""


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

    def is_older(self, name: str, seconds: int) -> bool:
        """Return whether what is kept was read longer ago than that."""
        kept = self.store.get(self._build_cache_key(name))
        now = datetime.now()  # noqa: DTZ005 - what Powertools compares with
        return kept is not None and kept.ttl < now + timedelta(seconds=SECRET_MAX_AGE - seconds)

    def is_kept(self, name: str) -> bool:
        return self.has_not_expired_in_cache(self._build_cache_key(name))

    def drop(self, name: str) -> None:
        self.store.pop(self._build_cache_key(name), None)

    def _get(self, name: str, **_: Any) -> Any:
        """Return the settings in a secret. Raises NotConfiguredError, StorageError."""
        try:
            document = self.client.get_secret_value(SecretId=name).get("SecretString", "")  # none if it is binary
        except (ClientError, BotoCoreError) as error:
            if isinstance(error, ClientError) and error.response["Error"]["Code"] in NO_SECRET:
                raise NoSettingsError(f"There is no secret {name}. Create it, then send again.") from None
            raise StorageError("Secrets Manager did not respond. Send the same request again.") from None
        try:
            return parse_tenant(document, local_hosts(), self._part_of(name))
        except ValidationError as error:
            fields = ", ".join(".".join(str(part) for part in e["loc"]) or "the document" for e in error.errors())
            raise NotConfiguredError(f"The secret {name} is not valid: check {fields}.") from None


class Tenants:
    """Reads parts of tenants from Secrets Manager, each at most once in five minutes, or once in MAPPING_MAX_AGE for
    whoever maps events. Threads may share it.
    """

    def __init__(self, client: "SecretsManagerClient", prefix: str) -> None:
        self._secrets = _Secrets(client, prefix)
        self._prefix = prefix
        self._missing: dict[tuple[str, str], float] = {}
        self._not_before: dict[str, float] = {}
        """By secret: when an early reading is tried again after one that failed."""

    def find(self, name: str, function: str, *, max_age: int = SECRET_MAX_AGE) -> Tenant | None:
        """Return the same as `get`; None if there is no secret, which is then not asked for again for a minute.

        So whoever makes up tenants' names has few of them looked up twice. Raises NotConfiguredError, StorageError.
        """
        key, now = (name, function), time.monotonic()
        if now < self._missing.get(key, 0):
            return None
        try:
            return self.get(name, function, max_age=max_age)
        except NoSettingsError:
            keep_newest(self._missing, key, now + MISSING_MAX_AGE, MOST_MISSING)
            return None

    def get(self, name: str, function: str, *, fresh: bool = False, max_age: int = SECRET_MAX_AGE) -> Tenant:
        """Return the part of a tenant's settings that a function needs; the rest is in secrets that others read.

        What was read longer than `max_age` seconds ago is read again; if Secrets Manager does not respond, it is used
        all the same until it is SECRET_MAX_AGE old. `fresh` reads past the cache. Raises NotConfiguredError,
        StorageError.
        """
        secret, now = f"{self._prefix}{PART_OF.get(function, function)}/{name}", time.monotonic()
        is_early = (
            max_age < SECRET_MAX_AGE
            and now >= self._not_before.get(secret, 0)
            and self._secrets.is_older(secret, max_age)
        )
        try:
            found = self._secrets.get(secret, max_age=SECRET_MAX_AGE, force_fetch=fresh or is_early)
        except GetParameterError as error:  # which is raised instead of whatever went wrong
            cause = error.__context__
            if isinstance(cause, NotConfiguredError):
                self._secrets.drop(secret)  # a secret that is gone or wrong is not used any further
            if not isinstance(cause, StorageError) or fresh or not self._secrets.is_kept(secret):
                raise cause or error from None
            self._not_before[secret] = now + MAPPING_MAX_AGE  # else every event would wait for the time-out
            found = self._secrets.get(secret, max_age=SECRET_MAX_AGE)
        return cast("Tenant", found)

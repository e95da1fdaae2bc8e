"""A tenant's settings: the base class of all blocks, types of their fields, and the tenant, which has a block for each
vendor that it uses. A vendor's own settings are in its file, in `crm_bridge.vendors`.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from functools import cache, cached_property, lru_cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple, cast
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationInfo,
    create_model,
)

from crm_bridge.errors import NotConfiguredError
from crm_bridge.fields import DocumentPart
from crm_bridge.mapping import Mappings, mappings_model
from crm_bridge.outbound.public_addresses import is_public_host
from crm_bridge.vendors import SOURCES, vendors

if TYPE_CHECKING:
    from crm_bridge.sources import SourceSettings

_LABEL = "[A-Za-z0-9_-]{1,63}"
_NETLOC = re.compile(rf"({_LABEL}(\.{_LABEL})*\.?|\[[0-9A-Fa-f:.]+\])(:[0-9]{{1,5}})?")
"""A host that can be looked up, which may have a port, and no login. Source: https://www.rfc-editor.org/rfc/rfc1035#section-2.3.4"""
LONGEST_HOST = 253
"""Characters."""
KEEP_REQUESTS_DAYS = 30


class Settings(DocumentPart):
    """One block of a tenant's document, or a part of a block."""

    block: ClassVar[str] = ""
    """Its name in the document; empty for a part of a block. A block's `title` follows "Does the tenant use"."""

    def shown(self) -> dict[str, Any]:
        """Return what was set, with every secret masked."""
        return self.model_dump(mode="json", exclude_unset=True)


# ---------------------------------------------------------------------- questions of `crm-bridge tenant add`


class Prompt(NamedTuple):
    """In a required field's annotation: the question for it. A `SecretStr` is not shown while it is typed."""

    question: str
    parse: Callable[[str], object] = str.strip


class Generated(NamedTuple):
    """In a required field's annotation: it is not asked for, but made of random bytes in base64, after a prefix."""

    length: int
    prefix: str = ""


# ---------------------------------------------------------------------- types of fields


def checked_address(value: str, info: ValidationInfo, *, form: str, never: str) -> str:
    """Return an address that may be called (see `public_addresses`).

    Raises ValueError, also if one of the characters of `never` is in it; `form` says what it may consist of.
    """
    if not re.fullmatch("[!-~]+", value):  # first, because what `urlsplit` says of others repeats them
        raise ValueError(f"must be {form} only")
    parts = urlsplit(value)
    host = parts.hostname or ""
    is_local = bool({host, parts.netloc} & (info.context or frozenset()))
    if parts.scheme != "https" and not (is_local and parts.scheme == "http"):
        raise ValueError("must be an https address")
    # Whatever is appended behind a ? or # would not be the path, also if nothing follows it here.
    if not _NETLOC.fullmatch(parts.netloc) or len(host) > LONGEST_HOST or parts.port == 0 or set(never) & {*value}:
        raise ValueError(f"must be {form} only")
    if not is_local and not is_public_host(host):
        raise ValueError("must be a public address: functions on AWS reach no private one")
    return value


def _vendor_url(value: str, info: ValidationInfo) -> str:
    return checked_address(value, info, form="scheme, host and path", never="?#").rstrip("/")


def _header_value(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if not text or not text.isascii() or not text.isprintable() or text != text.strip():
        raise ValueError("must be printable ASCII without surrounding spaces")
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
type HeaderSecret = Annotated[SecretStr, AfterValidator(_header_value)]
type LoginPart = Annotated[str, AfterValidator(_login_part)]
type LoginSecret = Annotated[SecretStr, AfterValidator(_login_secret)]


# ---------------------------------------------------------------------- the tenant


class Tenant(Settings):
    """A tenant's document, or the part of it that one secret has. A vendor that the tenant does not use is left out.

    Its subclasses have a field for each block (see `tenant_model`).
    """

    mappings: Mappings = Mappings()
    """By flow: how the JSON of a CRM that cannot shape its payload becomes an event."""
    has_webhook: bool = False
    """Written by the command line: whether there is a `webhook`, for the functions that must not read it."""
    keep_requests_days: Annotated[int, Field(ge=0, le=90)] = KEEP_REQUESTS_DAYS
    """Days for which a request that was refused, or is in quarantine, can be found. 0 keeps none that was refused."""

    keep_exchanges_days: Annotated[int, Field(ge=0, le=90)] = 0
    """Days for which the calls of an attempt that succeeded are kept. Those of one that failed are kept for 30 days, or
    for as many as these if that is more."""

    _document: SecretStr = PrivateAttr(SecretStr(""))

    def of[SettingsT: Settings](self, model: type[SettingsT]) -> SettingsT | None:
        """Return the settings of one block, such as `tenant.of(IlluSettings)`; None if the tenant does not use it."""
        found: SettingsT | None = getattr(self, model.block, None)
        return found

    def require[SettingsT: Settings](self, model: type[SettingsT]) -> SettingsT:
        """Return the settings of one block. Raises NotConfiguredError if the tenant does not use it."""
        found = self.of(model)
        if found is None:
            raise NotConfiguredError(f"The tenant's secret has no {model.block} block. Add it, then send again.")
        return found

    def all_sources(self) -> "Mapping[str, SourceSettings]":
        """Return the settings of the tenant's sources by their names."""
        sources: Mapping[str, SourceSettings] = getattr(self, SOURCES, {})
        return sources

    def shown(self) -> dict[str, Any]:
        blocks = {name: value.shown() for name, value in self if isinstance(value, Settings)}
        return {**super().shown(), **blocks}

    @cached_property
    def version(self) -> str:
        """Return what changes with the secret and tells nothing else of it: a salted hash that is slow to compute."""
        document = self._document.get_secret_value().encode()
        return hashlib.scrypt(document, salt=b"crm-bridge tenant", n=2**14, r=8, p=1, dklen=16).hex()


@cache
def tenant_model(part: str | None = None) -> type[Tenant]:
    """Return the model of one part of a tenant's document, or of the whole: a block for each vendor's settings."""
    blocks: dict[str, Any] = {
        model.block: (model | None, None) for vendor in vendors(part) for model in vendor.blocks()
    }
    if part in (None, SOURCES):
        from crm_bridge.sources import SourceSettings

        name = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]{0,62}$")]
        told = "By name: the senders that cannot shape their requests."
        blocks[SOURCES] = (dict[name, SourceSettings], Field({}, description=told, max_length=50))
    blocks["mappings"] = (mappings_model(), mappings_model()())
    return cast("type[Tenant]", create_model("Tenant", __base__=Tenant, __doc__=Tenant.__doc__, **blocks))


@lru_cache(maxsize=256)
def parse_tenant(document: str, local_hosts: frozenset[str] = frozenset(), part: str | None = None) -> Tenant:
    """Return the settings in a document, or in one part of it, which has no other vendor's blocks.

    Addresses at `local_hosts` may be private and without TLS (see `public_addresses`). Raises ValidationError, whose
    text names fields but shows no values.
    """
    tenant = tenant_model(part).model_validate_json(document, context=local_hosts)
    tenant._document = SecretStr(document)  # noqa: SLF001 - nobody else has the whole text
    return tenant

"""Settings: what a tenant's secret holds, one block for each vendor that it uses, checked and typed."""

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from functools import cached_property, lru_cache
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationInfo,
    model_validator,
)

from crm_bridge.ids import canonical
from crm_bridge.mapping import Mappings
from crm_bridge.public import is_public_host

_NETLOC = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
"""A host, which may have a port, and no login."""


def _checked(value: str, info: ValidationInfo, form: str, never: str) -> str:
    """Return an address that may be called (see `crm_bridge.public`). Raises ValueError; `never` must not be in it."""
    parts = urlsplit(value)
    host = parts.hostname or ""
    is_local = bool({host, parts.netloc} & (info.context or frozenset()))
    if parts.scheme != "https" and not (is_local and parts.scheme == "http"):
        raise ValueError("must be an https address")
    # Behind a ? or #, also one with nothing behind it, whatever is appended would not be the path.
    if not re.fullmatch("[!-~]+", value) or not _NETLOC.fullmatch(parts.netloc) or set(never) & {*value}:
        raise ValueError(f"must be {form} only")
    if not is_local and not is_public_host(host):
        raise ValueError("must be a public address: functions on AWS reach no private one")
    return value


def _vendor_url(value: str, info: ValidationInfo) -> str:
    return _checked(value, info, "scheme, host and path", "?#").rstrip("/")


def _callback_url(value: str, info: ValidationInfo) -> str:
    return _checked(value, info, "scheme, host, path and query", "#")


def _signing_secret(value: SecretStr) -> SecretStr:
    prefix, _, encoded = value.get_secret_value().partition("_")
    try:
        size = len(base64.b64decode(encoded, validate=True)) if prefix == "whsec" else 0
    except ValueError:
        size = 0
    if not 24 <= size <= 64:
        raise ValueError("must be whsec_ and 24 to 64 random bytes in base64")
    return value


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


def _egito_user(value: str) -> str:
    if not re.fullmatch(r"[^@\s]+@[^@\s]+", value) or value.casefold().endswith(".pl"):
        raise ValueError("must be the login and the application's name, without .pl: login@firma")
    return value


type EgitoName = Annotated[str, Field(pattern="^[A-Za-z_][A-Za-z0-9_.]{0,99}$")]
type VendorUrl = Annotated[str, AfterValidator(_vendor_url)]
type ListPath = Annotated[str, AfterValidator(_list_path)]
type CallbackUrl = Annotated[str, AfterValidator(_callback_url)]
type SigningSecret = Annotated[SecretStr, AfterValidator(_signing_secret)]
type HeaderSecret = Annotated[SecretStr, AfterValidator(_header_value)]
type LoginPart = Annotated[str, AfterValidator(_login_part)]
type LoginSecret = Annotated[SecretStr, AfterValidator(_login_secret)]


class _Settings(BaseModel):
    # A tenant is built once, with all that is in it; each of its parts by itself is only in the way of a cold start.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, defer_build=True)


class IlluSettings(_Settings):
    """How to reach a tenant's illu organisation. Source: illu integration page, see docs/vendors.md."""

    base_url: VendorUrl = "https://api.illu.works"
    org_id: int = Field(gt=0)
    """The numeric Organization ID of illu's Admin Console."""
    api_key: HeaderSecret
    """Shown in illu's Admin Console; it dies with a password change of the admin that it belongs to."""
    site_list_path: ListPath | None = None
    """Address that lists all sites, below base_url; `{org_id}` is filled in. illu documents none, so none is asked
    unless it is named here; without it a lost answer is put before a person. `{name}` is filled in as well: but then a
    site whose name illu altered is not shown, and what is not found is put before a person."""
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
    calls_per_minute: int = Field(default=250, ge=10, le=500)
    """That one execution environment makes; Rev.io allows an account 500, and as a rule two take what is due."""
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


type Scalar = str | int | bool | None


class FieldMap(_Settings):
    """Where a field goes at Egito, and what its values are called there; a value that is not listed goes as it is."""

    field: EgitoName
    values: dict[str, Scalar] = {}


def _field_map(value: object) -> object:
    return {"field": value} if isinstance(value, str) else value


def _known_fields(value: dict[str, FieldMap]) -> dict[str, FieldMap]:
    if unknown := sorted(set(value) - set(PERSON_FIELDS)):
        raise ValueError(f"{', '.join(unknown)} is no field of a person; those are {', '.join(PERSON_FIELDS)}")
    return value


PERSON_FIELDS: Mapping[str, str] = {
    "firstname": "firstName",
    "lastname": "lastName",
    "userType": "type",
    "userStatus": "status",
    "birthdate": "birthDate",
    "gender": "gender",
    "address1": "street",
    "address2": "street2",
    "city": "city",
    "zipcode": "zipCode",
    "state": "region",
    "country": "country",
    "email": "email",
    "mobile": "mobile",
    "homePhone": "phone",
    "workPhone": "workPhone",
    "company": "company",
    "trialStartDate": "trialStart",
    "trialEndDate": "trialEnd",
    "leadOwner": "ownerId",
    "leadSource": "source",
}
"""What the Connector sends of a person, and the field at Egito that it goes to unless a tenant says otherwise.

Egito's names are examples: its public pages print none. `GET /connector/clubs/{club_id}/check` compares them with a
real record. Source of the Connector's names: see docs/vendors.md.
"""

type PersonMap = Annotated[
    dict[str, Annotated[FieldMap, BeforeValidator(_field_map)]], AfterValidator(_known_fields), Field(min_length=1)
]


class PeopleMap(_Settings):
    """Which records at Egito prospects, or members, are."""

    entity: EgitoName = "Contact"
    fields: PersonMap = {name: FieldMap(field=field) for name, field in PERSON_FIELDS.items()}
    defaults: dict[EgitoName, Scalar] = {}
    """What a new record has besides, where nothing was sent for it."""
    reference: EgitoName | None = None
    """The field that takes the bridge's id of the person, by which a record is recognised whose answer was lost."""
    on_conversion: dict[EgitoName, Scalar] = {}
    """Of prospects that are another entity than members: what their record is set to when they become members."""


class StaffMember(_Settings):
    id: Annotated[str, Field(min_length=1, max_length=200)]
    email: str | None = None
    name: str | None = None


class StaffMap(_Settings):
    """Where the staff comes from: an entity at Egito, if it shows one, or else a list."""

    entity: EgitoName = "User"
    email: EgitoName = "email"
    name: tuple[EgitoName, ...] = ("name",)
    """The fields that make up the name."""
    people: tuple[StaffMember, ...] | None = None
    """The staff itself. Then Egito is not asked."""


class LeadSourceMap(_Settings):
    """Where the lead sources are: in a dictionary of Egito, or else in the bridge."""

    dictionary: EgitoName | None = None
    """Its type. People are then sent with the id of an entry, else with the lead source's name."""
    writable: bool = False
    """Whether the dictionary takes new entries through the API; Egito's pages do not say."""


class Paging(_Settings):
    """How a list is asked for page by page. Egito documents no paging, so none is used unless it is named here."""

    page: EgitoName
    size: EgitoName
    first: int = Field(default=1, ge=0, le=1)
    page_size: int = Field(default=100, ge=1, le=1000)


class EgitoSettings(_Settings):
    """How to reach a tenant's Egito, and what is what there. Source: https://egito.pl/pomoc/api"""

    base_url: VendorUrl
    """`https://NAME.egito.pl`"""
    api_id: Annotated[str, Field(min_length=1, max_length=200)]
    api_secret: LoginSecret
    username: Annotated[str, AfterValidator(_egito_user)]
    """With the application's name behind it: `login@firma`. Its rights are the bridge's."""
    password: LoginSecret
    token_parameters: Literal["query", "body"] = "query"  # noqa: S105 - where they stand
    """Where the credentials stand when a token is asked for; the query is documented."""
    token_in: Literal["header", "query"] = "header"  # noqa: S105 - where it stands
    """Where the token stands in a call; that is not documented."""
    body_format: Literal["json", "form"] = "json"
    paging: Paging | None = None
    lists_everything: bool = False
    """Whether a list is sure to be whole, so that what is not in it is not there."""
    search_lag: int = Field(default=120, ge=30, le=86_400)
    """Seconds after which a new record is sure to be in a list."""
    prospects: PeopleMap = PeopleMap()
    members: PeopleMap = PeopleMap()
    staff: StaffMap = StaffMap()
    lead_sources: LeadSourceMap = LeadSourceMap()

    @model_validator(mode="after")
    def _tell_prospects_from_members(self) -> Self:
        if self.prospects.entity == self.members.entity and self.prospects.on_conversion:
            raise ValueError("on_conversion is for prospects that are another entity than members")
        return self


class ClubSettings(_Settings):
    connector_id: Annotated[str, Field(min_length=1, max_length=200)]
    """The Connector's id of the club."""
    fields: dict[EgitoName, Scalar] = {}
    """What every record of this club has at Egito, so that clubs can be told apart there."""


class ConnectorSettings(_Settings):
    """What the turn-up of a customer settles with InTouch. The password is an API key, and not kept here.

    Source: "Partner Integration Guide" of InTouch, section "Turnup"; see docs/vendors.md.
    """

    client_id: Annotated[str, Field(min_length=1, max_length=200)]
    """Our id of the customer."""
    clubs: Annotated[dict[Annotated[str, Field(min_length=1, max_length=100)], ClubSettings], Field(min_length=1)]
    """By our id, which is in the address of every call."""
    user: str = "connector"
    """With which the Connector signs in, besides its password; any would do."""
    scheme: Literal["https"] = "https"
    host: str | None = None
    """Of the API, as InTouch was told it."""
    match_key: Annotated[SecretStr, Field(min_length=32)]
    """Random. With it names and addresses are hashed by which people are recognised; with another, nobody is."""

    phone_country: Annotated[str, Field(pattern="^[A-Z]{2}$")] | None = None
    """The country of phone numbers that name none, two letters (ISO 3166), as in PL. Without one, +48 601 234 567 and
    601 234 567 are two numbers."""
    ask_about_namesakes: bool = False
    """Whether a person decides if somebody new is the one of the same name in the same club, where neither an e-mail,
    nor a mobile, nor the Connector's id tells them apart. Otherwise a new record is made, with a warning."""

    @model_validator(mode="after")
    def _name_each_club_once(self) -> Self:
        theirs = [club.connector_id for club in self.clubs.values()]
        if len(set(theirs)) < len(theirs):
            raise ValueError("two clubs have the same connector_id")
        if any(club_id in theirs and self.clubs[club_id].connector_id != club_id for club_id in self.clubs):
            raise ValueError("one club's id is another's connector_id")
        return self

    def club(self, club_id: str) -> str | None:
        """Our id of the club with this id, which may be the Connector's; None if there is none."""
        wanted = canonical(club_id)
        ours = {canonical(club_id): club_id for club_id in self.clubs}
        theirs = {canonical(club.connector_id): club_id for club_id, club in self.clubs.items()}
        return ours.get(wanted, theirs.get(wanted))


class CallbackSettings(_Settings):
    """Where the tenant is told what became of what was answered with 202.

    Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
    """

    url: CallbackUrl = Field(repr=False)
    """Of the tenant's own system. It may hold a token, so it is not shown either."""
    secret: SigningSecret
    previous_secret: SigningSecret | None = None
    """Signs as well, so that the receiver can go from one secret to the next without a gap."""


class Tenant(_Settings):
    """A tenant's document, or the part of it that one secret holds (see `split`). A vendor that is not used is left
    out.
    """

    illu: IlluSettings | None = None
    revio: RevioSettings | None = None
    izzitup: IzzitUpSettings | None = None
    egito: EgitoSettings | None = None
    connector: ConnectorSettings | None = None
    callback: CallbackSettings | None = None
    mappings: Mappings = Mappings()
    has_callback: bool = False
    """Written by `split`: whether there is a `callback`, for the functions that must not read it."""

    _document: SecretStr = PrivateAttr(SecretStr(""))

    @cached_property
    def version(self) -> str:
        """Tells whether the secret has changed, and nothing else about it: it is salted, and slow to compute."""
        document = self._document.get_secret_value().encode()
        return hashlib.scrypt(document, salt=b"crm-bridge tenant", n=2**14, r=8, p=1, dklen=16).hex()


@lru_cache(maxsize=256)
def parse_tenant(document: str, local_hosts: frozenset[str] = frozenset()) -> Tenant:
    """Return the settings; addresses at `local_hosts` may be private and without TLS (see `crm_bridge.public`).

    Raises ValidationError, whose text names fields but shows no values.
    """
    tenant = Tenant.model_validate_json(document, context=local_hosts)
    tenant._document = SecretStr(document)  # noqa: SLF001 - nobody else has the whole text
    return tenant


PART_OF: Mapping[str, str] = {
    "create_site": "illu",
    "create_job": "illu",
    "key_link": "revio",
    "status_update": "izzitup",
    "connector_receiver": "egito",
    "callback": "callback",
}
"""By flow: the part of a tenant's document that it needs. Each part is a secret, `crm-bridge/<stage>/<part>/<tenant>`,
so that a function's role can name exactly what it reads."""
BLOCKS: Mapping[str, tuple[str, ...]] = {
    "illu": ("illu",),
    "revio": ("revio",),
    "izzitup": ("izzitup",),
    "egito": ("egito", "connector"),
    "callback": ("callback",),
}
EMPTY = "{}"


def split(document: str) -> dict[str, str]:
    """Return the parts of a tenant's document, in the order in which they must be written; one without settings is
    EMPTY.

    Several secrets cannot be written at once. As long as a vendor's part says that there is a webhook, the webhook's is
    there: it is the first to be written, and the last to be emptied. All else that belongs together is in one part.
    White space at the end is kept, for it makes another version of a secret. Raises ValueError if it is no JSON object.
    """
    whole: Any = json.loads(document)
    if not isinstance(whole, dict):
        raise ValueError("a tenant's settings are a JSON object")
    mappings = whole.get("mappings") or {}
    has_callback = whole.get("callback") is not None
    space = document[len(document.rstrip()) :]
    parts = {}
    for part, blocks in BLOCKS.items():
        content = {block: whole[block] for block in blocks if whole.get(block) is not None}
        mapped = {flow: mapping for flow, mapping in mappings.items() if PART_OF.get(flow) == part}
        content |= {"mappings": mapped} if mapped else {}
        if content and has_callback and part != "callback":
            content["has_callback"] = True
        parts[part] = (json.dumps(content, indent=2, ensure_ascii=False) if content else EMPTY) + space
    webhook = parts.pop("callback")
    return {"callback": webhook, **parts} if has_callback else {**parts, "callback": webhook}


def has_callback(part: str) -> bool:
    """Return whether a part says that there is a webhook. Raises ValueError if it is no JSON."""
    return bool(json.loads(part).get("has_callback"))


def joined(parts: Iterable[str]) -> str:
    """Return the document that `split` made these of. Raises ValueError if one is no JSON."""
    whole: dict[str, Any] = {}
    mappings: dict[str, Any] = {}
    for part in parts:
        content: dict[str, Any] = json.loads(part)
        content.pop("has_callback", None)
        mappings |= content.pop("mappings", {})
        whole |= content
    return json.dumps({**whole, "mappings": mappings} if mappings else whole, indent=2, ensure_ascii=False)

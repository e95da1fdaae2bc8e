"""Events of every kind, each with a mark of its own: what is sent, and what there must be at the vendor in the end.

The vendor's records come from the simulator itself and are found by the mark, never by what the bridge remembers.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from local.vendors.alterations import as_sent
from local.vendors.egito import CLUB
from local.vendors.izzitup import service
from tests.stack import Stack

type Record = Mapping[str, object]
TEXT = " d\N{RIGHT SINGLE QUOTATION MARK}Arc  & <b>Söhne</b> \N{GRINNING FACE}\N{ZERO WIDTH SPACE} GmbH in Kitale"
TEXT_OF_ID = " a  b\N{RIGHT SINGLE QUOTATION MARK}s & <i>ö \N{GRINNING FACE} " + 40 * "x"
"""Of each a vendor may make something else."""
type Ties = Sequence[Sequence[str]]
"""Groups of identities (`system/entity/id`); in each, all are linked to one another, in both directions."""


@dataclass(frozen=True)
class Event:
    """`before` is sent first, in peace. `untied` are identities that must have no link in the end.

    `writes` is how the name of the call begins that makes the effect at the vendor.
    """

    kind: str
    writes: str
    method: str
    path: Callable[[Stack], str]
    body: object
    held: Callable[[Stack], list[Record]]
    wanted: list[Record]
    ties: Callable[[Stack], Ties] = lambda _: ()
    untied: Sequence[str] = ()
    before: tuple["Event", ...] = ()
    arrange: Callable[[Stack], None] = lambda _: None
    """The records that have to be there at the vendor."""


def tenant(stack: Stack) -> dict[str, Any]:
    """The document of the tenant that these events are for: prospects and members are two kinds of record, and later
    payloads of a contact are applied."""
    document: dict[str, Any] = json.loads(stack.demo_tenant())
    lead = {"entity": "Lead", "reference": "externalId", "on_conversion": {"status": "CONVERTED"}}
    document["egito"]["prospects"] = lead
    document["egito"]["records"]["Contact"] = {"reference": "externalId", "update": "apply"}
    return document


def _picked(records: Iterable[Record], member: str, mark: str, *members: str) -> list[Record]:
    """As they were sent, whatever the vendor made of the texts."""
    fitting = [record for record in records if mark in str(as_sent(record.get(member, "")))]
    return [{name: as_sent(record[name]) for name in members} for record in fitting]


def _ids(records: Iterable[Record], member: str, mark: str, id_member: str) -> list[str]:
    return [str(record[id_member]) for record in records if mark in str(as_sent(record.get(member, "")))]


# ---------------------------------------------------------------------- illu


def _site(number: int, text: str = TEXT) -> dict[str, object]:
    """Each at a place of its own."""
    name = f"Shop s{number}.{text}"
    return {"name": name, "latitude": number / 1000 - 80, "longitude": 35.0062, "address": f"Moi Ave 12{text}"}


def _sites(stack: Stack, mark: str) -> list[Record]:
    return _picked(stack.illu.sites, "name", mark, "name", "latitude", "longitude", "address")


def create_site(number: int, text: str = TEXT) -> Event:
    mark = f"s{number}."
    return Event(
        "create_site",
        "illu POST /orgs/{}/sites",
        "POST",
        lambda _: "/sites",
        {"customer_id": f"C-{mark}", **_site(number, text)},
        lambda stack: _sites(stack, mark),
        [_site(number, text)],
        lambda stack: [
            (f"crm/customer/C-{mark}", f"illu/site/{site_id}")
            for site_id in _ids(stack.illu.sites, "name", mark, "site_id")
        ],
    )


def _job(
    number: int, kind: str, site: Record | None, before: tuple[Event, ...], text: str = TEXT, of_id: str = TEXT_OF_ID
) -> Event:
    mark, customer = f"T-{number}.", f"C-s{number}."
    ticket = f"{mark}{of_id}"
    body = {"ticket_id": ticket, "customer_id": customer, "name": f"Meter {mark}{text}", "notes": f"After two{text}."}
    job = {"name": f"Meter {mark}{text}", "notes": f"After two{text}.\n\n[CRM ticket {ticket}]"}

    def ties(stack: Stack) -> Ties:
        site_ids = _ids(stack.illu.sites, "name", f"s{number}.", "site_id")
        job_ids = _ids(stack.illu.jobs, "notes", mark, "job_id")
        return [
            *((f"crm/customer/{customer}", f"illu/site/{site_id}") for site_id in site_ids),
            *((f"crm/ticket/{ticket}", f"illu/job/{job_id}") for job_id in job_ids),
            *((f"illu/job/{job_id}", f"illu/site/{site_id}") for job_id in job_ids for site_id in site_ids),
        ]

    return Event(
        kind,
        "illu POST /orgs/{}/jobs",
        "POST",
        lambda _: "/jobs",
        {**body, **({"site": site} if site else {})},
        lambda stack: [
            *_sites(stack, f"s{number}."),
            *_picked(stack.illu.jobs, "notes", mark, "name", "notes"),
        ],
        [_site(number), job],
        ties,
        before=before,
    )


def create_job(number: int, text: str = TEXT, of_id: str = TEXT_OF_ID) -> Event:
    return _job(number, "create_job", None, (create_site(number),), text, of_id)


def create_job_and_site(number: int) -> Event:
    return _job(number, "create_job and its site", _site(number), ())


# ---------------------------------------------------------------------- Rev.io

_KEY_LINK = ("integration_system_id", "integration_entity_type_id", "internal_id", "external_id")


def _key_link(
    kind: str, method: str, number: int, internal: int, *, before: tuple[Event, ...], of_id: str = TEXT_OF_ID
) -> Event:
    external, gone = f"001X{number}.{of_id}", method == "DELETE"

    def key_link_ids(stack: Stack) -> list[str]:
        return _ids(stack.revio.key_links, "external_id", external, "integration_key_link_id")

    def ties(stack: Stack) -> Ties:
        ends = (f"salesforce/customer/{external}", f"revio/customer/{internal}")
        return [] if gone else [(*ends, f"revio/key_link/{key_link_id}") for key_link_id in key_link_ids(stack)]

    untied = {"POST": (), "PUT": (2000 + number,), "DELETE": (2000 + number,)}[method]
    return Event(
        kind,
        f"revio {method} /v1/IntegrationKeyLink" + ("" if method == "POST" else "/{}"),
        method,
        lambda stack: "/key-links" if method == "POST" else f"/key-links/{key_link_ids(stack)[0]}",
        {"system": "SALESFORCE", "entity_type": "CUSTOMER", "internal_id": internal, "external_id": external},
        lambda stack: _picked(stack.revio.key_links, "external_id", external, *_KEY_LINK),
        [] if gone else [dict(zip(_KEY_LINK, (4, 2, internal, external), strict=True))],
        ties,
        [f"revio/customer/{one}" for one in untied],
        before,
    )


def create_key_link(number: int, of_id: str = TEXT_OF_ID) -> Event:
    return _key_link("key_link create", "POST", number, 2000 + number, before=(), of_id=of_id)


def change_key_link(number: int) -> Event:
    return _key_link("key_link change", "PUT", number, 500_000 + number, before=(create_key_link(number),))


def delete_key_link(number: int) -> Event:
    return _key_link("key_link delete", "DELETE", number, 2000 + number, before=(create_key_link(number),))


# ---------------------------------------------------------------------- IzzitUp


def update_status(number: int) -> Event:
    key = f"S{number}."
    return Event(
        "status_update",
        "izzitup POST /izzitup/public/api/services",
        "PUT",
        lambda _: f"/services/{key}/status",
        {"status": "outage", "occurred_at": "2024-05-05T10:00:00Z"},
        lambda stack: _picked(stack.izzitup.services, "key", key, "status"),
        [{"status": "7"}],
        arrange=lambda stack: stack.izzitup.services.append(service(str(1000 + number), f"Service {number}", key)),
    )


# ---------------------------------------------------------------------- Egito

_EGITO = "egito POST /services/restapi/json/"
_PERSON = ("firstName", "lastName", "type", "ownerId", "source", "club")


def _ties_of_person(stack: Stack, mark: str) -> Ties:
    egito = urlsplit(stack.egito.url).netloc
    records = [(kind, record) for kind in ("Lead", "Contact") for record in stack.egito.records[kind]]
    return [
        tie
        for kind, record in records
        if as_sent(record["lastName"]) == mark + TEXT
        and (person := as_sent(record["externalId"]))  # only there it tells the bridge's id of the person
        for tie in (
            (f"connector/person/{person}", f"{egito}/{kind.lower()}/{record['id']}"),
            (f"intouch/person/u-{mark}", f"connector/person/{person}"),
        )
    ]


def save_prospect(number: int) -> Event:
    mark = f"Nowak{number}."
    who = {"uuid": f"u-{mark}", "firstname": "Ada", "lastname": mark + TEXT}
    sent = {**who, "userStatus": "ACTIVE", "userType": "PROSPECT"}
    kept = {"firstName": "Ada", "lastName": mark + TEXT, "type": "PROSPECT", "ownerId": "7", "source": "2"}
    return Event(
        "save prospect",
        f"{_EGITO}Lead/create",
        "POST",
        lambda _: f"/connector/clubs/{CLUB}/prospects",
        {**sent, "leadOwner": "maja@club.example", "leadSource": "Walk-in"},
        lambda stack: _picked(stack.egito.records["Lead"], "lastName", mark, *_PERSON),
        [{**kept, "club": "Centre"}],
        lambda stack: _ties_of_person(stack, mark),
    )


def change_prospect(number: int) -> Event:
    before = save_prospect(number)
    mark = f"Nowak{number}."
    sent = {"firstname": "Eva", "lastname": mark + TEXT, "userStatus": "ACTIVE", "userType": "PROSPECT"}
    return Event(
        "save prospect again",
        f"{_EGITO}Lead/update",
        "PUT",
        lambda _: f"/connector/clubs/{CLUB}/prospects/u-{mark}",
        sent,
        before.held,
        [{**before.wanted[0], "firstName": "Eva"}],
        before.ties,
        before=(before,),
    )


def save_member(number: int) -> Event:
    """The conversion: the prospect's record is closed, and the member gets one with what the prospect's had."""
    before = save_prospect(number)
    mark = f"Nowak{number}."
    sent = {"firstname": "Ada", "lastname": mark + TEXT, "userStatus": "ACTIVE", "userType": "MEMBER"}
    return Event(
        "save member (conversion)",
        f"{_EGITO}Contact/create",
        "PUT",
        lambda _: f"/connector/clubs/{CLUB}/members/u-{mark}",
        sent,
        lambda stack: [
            *_picked(stack.egito.records["Lead"], "lastName", mark, "status"),
            *_picked(stack.egito.records["Contact"], "lastName", mark, *_PERSON),
        ],
        [{"status": "CONVERTED"}, {**before.wanted[0], "type": "MEMBER"}],
        before.ties,
        before=(before,),
    )


def create_lead_source(number: int) -> Event:
    name = f"Fair {number:06}.{TEXT}"  # none is the beginning of another
    return Event(
        "lead source create",
        f"{_EGITO}SelectDictionary/create",
        "POST",
        lambda _: f"/connector/clubs/{CLUB}/lead-sources",
        {"name": name},
        lambda stack: _picked(stack.egito.dictionaries["leadSource"], "name", name, "name"),
        [{"name": name}],
    )


def create_record(number: int) -> Event:
    """A CRM's own lead, which nobody has to do with whom the Connector knows."""
    mark = f"Lis{number}."
    fields = {"firstName": "Iga", "lastName": mark + TEXT, "email": f"l{number}@example.com"}
    return _new_record("create_record", "Lead", f"L-{mark}{TEXT_OF_ID}", "lastName", mark, fields)


def change_record(number: int) -> Event:
    """One field of a contact; all others stay as they are."""
    mark = f"Sowa{number}."
    fields = {"firstName": "Leon", "lastName": mark + TEXT, "phone": "600500400"}
    before = _new_record("a contact", "Contact", f"C-{mark}", "lastName", mark, fields)
    return replace(
        before,
        kind="change_record",
        writes=f"{_EGITO}Contact/update",
        method="PUT",
        path=lambda stack: f"/records/Contact/{_record_ids(stack, 'Contact', 'lastName', mark)[0]}",
        body={"fields": {"phone": "600500401"}},
        wanted=[fields | {"phone": "600500401"}],
        before=(before,),
    )


def update_record(number: int) -> Event:
    """A later payload of the event that makes a contact."""
    mark = f"Gil{number}."
    fields = {"firstName": "Olga", "lastName": mark + TEXT, "phone": "600500600"}
    made = _new_record("a contact", "Contact", f"U-{mark}", "lastName", mark, fields)
    first = {"external_id": f"U-{mark}", "changed_at": "2024-05-05T10:00:00Z", "fields": fields}
    changed = fields | {"phone": "600500601"}
    return replace(
        made,
        kind="create_record, a later payload",
        writes=f"{_EGITO}Contact/update",
        body={**first, "changed_at": "2024-05-05T11:00:00Z", "fields": changed},
        wanted=[changed],
        before=(replace(made, body=first),),
    )


def delete_record(number: int) -> Event:
    """An order that is withdrawn. What the CRM calls it is free for another then."""
    mark = f"Order {number:06}."
    before = _new_record("an order", "Order", f"O-{number}.", "name", mark, {"name": mark + TEXT})
    return replace(
        before,
        kind="delete_record",
        writes=f"{_EGITO}Order/delete",
        method="DELETE",
        path=lambda stack: f"/records/Order/{_record_ids(stack, 'Order', 'name', mark)[0]}",
        body=None,
        wanted=[],
        ties=lambda _: (),
        untied=[f"crm/order/O-{number}."],
        before=(before,),
    )


def _new_record(kind: str, entity: str, external_id: str, named: str, mark: str, fields: Record) -> Event:
    """A new record, which is found by `mark` in its field `named`."""

    def ties(stack: Stack) -> Ties:
        system = f"{urlsplit(stack.egito.url).netloc}/{entity.lower()}"
        ids = _record_ids(stack, entity, named, mark)
        return [(f"crm/{entity.lower()}/{external_id}", f"{system}/{record_id}") for record_id in ids]

    return Event(
        kind,
        f"{_EGITO}{entity}/create",
        "POST",
        lambda _: f"/records/{entity}",
        {"external_id": external_id, "fields": fields},
        lambda stack: _picked(stack.egito.records[entity], named, mark, *fields),
        [fields],
        ties,
    )


def _record_ids(stack: Stack, entity: str, named: str, mark: str) -> list[str]:
    return _ids(stack.egito.records[entity], named, mark, "id")


def from_source(number: int) -> Event:
    """A sender's list: two new customers, one that is no customer, and the first one again."""
    mark = f"s{number}."
    sites: list[Record] = [_site(number), {**_site(number), "name": f"Branch {mark}{TEXT}", "longitude": 36.0062}]
    companies = [
        {
            **{name: str(value) for name, value in site.items()},
            "type": "company",
            "hs_object_id": f"C-{mark}{place}",
        }
        for place, site in enumerate(sites, 1)
    ]
    return Event(
        "events of a source",
        "illu POST /orgs/{}/sites",
        "POST",
        lambda _: "/in/{tenant}/hubspot",
        [*companies, {"type": "contact", "hs_object_id": "7"}, companies[0]],
        lambda stack: sorted(_sites(stack, mark), key=lambda site: str(site["longitude"])),
        sites,
        lambda stack: [
            (f"crm/customer/C-{mark}{place}", f"illu/site/{found['site_id']}")
            for place, site in enumerate(sites, 1)
            for found in stack.illu.sites
            if mark in str(as_sent(found["name"])) and found["longitude"] == site["longitude"]
        ],
    )


KINDS: tuple[Callable[[int], Event], ...] = (
    create_site,
    create_job,
    create_job_and_site,
    create_key_link,
    change_key_link,
    delete_key_link,
    update_status,
    save_prospect,
    change_prospect,
    save_member,
    create_lead_source,
    create_record,
    change_record,
    update_record,
    delete_record,
    from_source,
)

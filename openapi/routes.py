"""The facts about each route in docs/openapi.json that are not in template.yaml, the functions or docs/api.md."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict, get_args, get_type_hints

from pydantic import BaseModel
from pydantic.alias_generators import to_camel

from connector_receiver import record_routes
from connector_receiver import responses as connector
from connector_receiver.models import Check, LeadSourceSave, PersonSave
from connector_receiver.record_models import ChangedRecord, RecordCreation, RecordPage, RecordUpdate, StoredRecord
from crm_bridge import Flow
from crm_bridge.fields import LONGEST_ID
from crm_bridge.responses import OPERATION_ID, REQUEST_ID, Accepted
from key_link.models import EntityTypes, KeyLink, KeyLinkPage, KeyLinkSearch, StoredKeyLink, Systems
from operations import handler as operations
from operations.flows import flows
from operations.mappings import MappingQuestion
from operations.models import LinkSearch, Listing, Resolution, RetryAll
from sources import handler as sources
from sources.intake import ROUTE as INTAKE
from sources.models import RequestListing, TakenIn
from sources.trying import SourceQuestion
from status_update.models import NewStatus, Services, StatusUpdated

type Schema = Mapping[str, object]


class GatewayMessage(TypedDict):
    """The body of API Gateway's own response, when no function was called, or none returned one."""

    message: str


@dataclass(frozen=True)
class Route:
    name: str
    """The `operationId`."""
    summary: str
    result: type | None
    """The members of a response of less than 300, besides those of every event; None is no body."""
    statuses: tuple[int, ...] = (200,)
    """Of these responses. An event may have 202 as well."""
    description: str = ""
    accepted: type | None = None
    """The body of 202, which only an event has: it is sent to a vendor, now or later."""
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    takes_key: bool = False
    """The header `Idempotency-Key` may say what makes the event unique."""
    asks_vendor: bool = False
    """It is no event, and asks a vendor before it responds."""
    problems: tuple[int, ...] = ()
    """Besides those that follow from the rest."""
    by_proof: bool = False
    """Its caller proves who it is in a way of its own, and has no API key."""

    def all_problems(self, path: str) -> set[int]:
        """Return the statuses of its problems. Which problems a status may have is in `crm_bridge.errors`."""
        found = {401, 429, 500, 503, *self.problems}
        if not self.by_proof:
            found |= {403, 404} if "{" in path else {403}
        found |= {400, 413, 415, 422} if self.body else set()
        found |= {422} if self.query else set()
        found |= {409, 410, 422, 502} if self.accepted else set()
        return found | ({422, 502} if self.asks_vendor else set())


def _event(name: str, summary: str, result: type | None, *statuses: int, **more: object) -> Route:
    return Route(name, summary, result, statuses, **{"accepted": Accepted, **more})  # type: ignore[arg-type]


def _save(name: str, summary: str) -> Route:
    text = "One call makes and updates. A field that is left out, or null, stays as it is; an empty text empties it."
    saved, accepted = connector.PersonSaved, connector.PersonAccepted
    return _event(name, summary, saved, 201, 200, description=text, body=PersonSave, accepted=accepted)


def _of_handler(key: str, **more: object) -> Route:
    """Return what the handler itself says of a route: by its name, its docstring and the type that it returns."""
    handler = (operations.ROUTES | record_routes.ROUTES | sources.ROUTES)[key]
    summary, _, description = (handler.__doc__ or "").partition("\n")
    (result,) = get_args(get_type_hints(handler)["return"])
    name = to_camel(handler.__name__.strip("_"))
    return Route(name, summary, result, description=" ".join(description.split()), **more)  # type: ignore[arg-type]


def _of_flow(flow: type[Flow[Any, Any, Any]]) -> Route:
    """Return what a flow itself says of its route: by its class's name and docstring, and its models."""
    summary, _, description = (inspect.getdoc(flow) or "").partition("\n")
    return _event(
        flow.__name__[0].lower() + flow.__name__[1:],
        summary.removesuffix("."),
        flow.result,
        *dict.fromkeys((flow.success, 200)),
        description=" ".join(description.split()),
        body=flow.command,
    )


PAGES = ("GET /console",)
"""Routes that return a page for people, and so are no part of the API."""
_CLUB = "/connector/clubs/{club_id}"
ROUTES = {
    **{flow.route: _of_flow(flow) for flow in flows().values() if flow.route},
    "GET /key-links": Route(
        "searchKeyLinks",
        "Search key links",
        KeyLinkPage,
        description="Everything is compared exactly, names without their case. A page may have fewer than `page_size`, "
        "even none: go on while `has_more` is true.",
        query=KeyLinkSearch,
        asks_vendor=True,
    ),
    "POST /key-links": _event(
        "createKeyLink",
        "An id in another system",
        StoredKeyLink,
        *(201, 200),
        description="All four members together make the event unique. 200 if Rev.io had it already, whoever made it.",
        body=KeyLink,
    ),
    "GET /key-links/{id}": Route("getKeyLink", "One key link, as Rev.io has it", StoredKeyLink, asks_vendor=True),
    "PUT /key-links/{id}": _event(
        "changeKeyLink",
        "Change a key link",
        StoredKeyLink,
        200,
        description="409 if another key link says the same already, or if a change that was asked for later was made "
        "before.",
        body=KeyLink,
    ),
    "DELETE /key-links/{id}": _event(
        "deleteKeyLink",
        "Delete a key link",
        None,
        204,
        description="204 also if it was gone already. 404 only if the id is none.",
    ),
    "GET /key-links/systems": Route("listSystems", "The names of systems", Systems, asks_vendor=True),
    "GET /key-links/entity-types": Route("listEntityTypes", "The names of entity types", EntityTypes, asks_vendor=True),
    "GET /services": Route("listServices", "What the status page shows", Services, asks_vendor=True),
    "PUT /services/{service}/status": _event(
        "updateStatus",
        "A service is impaired, down or back",
        StatusUpdated,
        200,
        description="A status older than the last one applied gets 200 with `ignored`, and changes nothing.",
        body=NewStatus,
    ),
    f"POST {_CLUB}/prospects": _save("saveProspect", "The InTouch Connector saves a prospect"),
    f"PUT {_CLUB}/prospects/{{id}}": _save("saveKnownProspect", "The InTouch Connector saves a prospect that it knows"),
    f"POST {_CLUB}/members": _save("saveMember", "The InTouch Connector saves a member"),
    f"PUT {_CLUB}/members/{{id}}": _save("saveKnownMember", "The InTouch Connector saves a member that it knows"),
    f"GET {_CLUB}/staff": Route("listStaff", "Who may own a lead", connector.Staff, asks_vendor=True),
    f"GET {_CLUB}/lead-sources": Route(
        "listLeadSources", "Where leads come from", connector.LeadSources, asks_vendor=True
    ),
    f"POST {_CLUB}/lead-sources": _event(
        "createLeadSource",
        "A new lead source",
        connector.LeadSourceSaved,
        *(201, 200),
        description="If there is one of this name, in whatever case, the response is 200 and that one.",
        body=LeadSourceSave,
        accepted=connector.LeadSourceAccepted,
    ),
    f"PUT {_CLUB}/lead-sources/{{id}}": _event(
        "changeLeadSource",
        "Another name for a lead source, or no longer in use",
        connector.LeadSourceSaved,
        200,
        body=LeadSourceSave,
        accepted=connector.LeadSourceAccepted,
    ),
    f"GET {_CLUB}/check": Route(
        "checkConnector",
        "Whether the set-up is right",
        connector.ConnectorCheck,
        description="Signs in to Egito, and compares the tenant's maps with the records that are named. No value is "
        "shown.",
        query=Check,
        asks_vendor=True,
    ),
    "POST /records/{entity}": _event(
        "createRecord",
        "A new record at Egito",
        StoredRecord,
        *(201, 200),
        description="`Idempotency-Key` makes the event unique, or else `external_id`. The same event is sent once.",
        body=RecordCreation,
        takes_key=True,
    ),
    "GET /records/{entity}": _of_handler("GET /records/{entity}", query=RecordPage, asks_vendor=True),
    "GET /records/{entity}/{id}": _of_handler("GET /records/{entity}/{id}", asks_vendor=True),
    "PUT /records/{entity}/{id}": _event(
        "changeRecord",
        "Change fields of one of Egito's records",
        ChangedRecord,
        200,
        description="The other fields stay as they are. Of each field, the last request counts, even if an earlier one "
        "is late.",
        body=RecordUpdate,
    ),
    "DELETE /records/{entity}/{id}": _event(
        "deleteRecord",
        "Delete one of Egito's records",
        None,
        204,
        description="204 also if an earlier request has deleted it.",
    ),
    "GET /dictionaries/{type}": _of_handler("GET /dictionaries/{type}", asks_vendor=True),
    "GET /operations": _of_handler("GET /operations", query=Listing),
    "GET /operations/summary": _of_handler("GET /operations/summary"),
    "GET /operations/{id}": _of_handler("GET /operations/{id}"),
    "POST /operations/retry": _of_handler("POST /operations/retry", body=RetryAll),
    "POST /operations/{id}/resolve": _of_handler("POST /operations/{id}/resolve", body=Resolution, problems=(409,)),
    INTAKE: Route(
        "receiveFromSource",
        "A sender that cannot shape its requests",
        TakenIn,
        (200, 202),
        description="The body, the headers and the proof are the sender's own, as the preset of the source says. The "
        "same 401 for an unknown tenant, an unknown source and a wrong proof. 503 if not all events could be stored: "
        "send the same again. To Salesforce the response is an acknowledgement in XML.",
        problems=(400, 413, 415, 422),
        by_proof=True,
    ),
    "GET /requests": _of_handler("GET /requests", query=RequestListing),
    "GET /requests/{id}": _of_handler("GET /requests/{id}"),
    "POST /requests/{id}/resend": _of_handler("POST /requests/{id}/resend", problems=(409, 422)),
    "POST /requests/{id}/discard": _of_handler("POST /requests/{id}/discard", problems=(409,)),
    "POST /mappings/try": _of_handler("POST /mappings/try", body=MappingQuestion),
    "POST /sources/try": _of_handler("POST /sources/try", body=SourceQuestion, problems=(404,)),
    "GET /links": _of_handler("GET /links", query=LinkSearch, problems=(404,)),
    "GET /links/{system}/{entity}/{id}": _of_handler("GET /links/{system}/{entity}/{id}", problems=(422,)),
}

_ID: Schema = {"type": "string", "minLength": 1, "maxLength": LONGEST_ID}
_TEXT: Schema = {"type": "string", "minLength": 1}
_NAME: Schema = {"$ref": "#/components/schemas/EgitoName"}
_PERSON = ("Our id of the person, `recordID`, or the Connector's, `uuid`.", _ID)
PARAMETERS: Mapping[str, tuple[str, Schema]] = {
    "clubs/{club_id}": ("Our id of the club or the Connector's, as the turn-up settled them.", _TEXT),
    "prospects/{id}": _PERSON,
    "members/{id}": _PERSON,
    "lead-sources/{id}": ("As in the list.", _TEXT),
    "operations/{id}": ("As in `operation_id`.", {"type": "string", "pattern": OPERATION_ID}),
    "requests/{id}": ("As in the list.", {"type": "string", "pattern": REQUEST_ID}),
    "in/{tenant}": ("The tenant that the sender belongs to.", {"type": "string", "minLength": 1}),
    "{tenant}/{source}": ("The name of one of the tenant's `sources`.", {"type": "string", "minLength": 1}),
    "key-links/{id}": ("Rev.io's id of the key link.", {"type": "integer", "minimum": 1, "maximum": 10**18 - 1}),
    "services/{service}": ("Its id, its key or its name, in whatever case.", _ID),
    "records/{entity}": ("As Egito writes it, and one of the tenant's `egito.records`: `Contact`.", _NAME),
    "dictionaries/{type}": ("As Egito writes it: `industry`.", _NAME),
    "links/{system}": ("In whatever case: `crm`, `illu`.", {"$ref": "#/components/schemas/Text"}),
    "{system}/{entity}": ("In whatever case: `customer`, `site`.", {"$ref": "#/components/schemas/Text"}),
    "{entity}/{id}": ("The id there.", {"$ref": "#/components/schemas/AnyId"}),
}
"""Description and schema of each parameter in a path, by its segment and the one before."""
XML_ROOTS: Mapping[type[BaseModel], str] = {PersonSave: "user", LeadSourceSave: "leadSource"}
"""The name of the root of a body in XML; in truth any name will do."""
HEADERS: Mapping[str, tuple[str, Schema]] = {
    "Location": ("The operation, to be asked what became of it.", {"type": "string", "format": "uri-reference"}),
    "Retry-After": ("Seconds after which to ask again.", {"type": "integer", "minimum": 0}),
    "WWW-Authenticate": ("`Bearer`.", {"type": "string"}),
    "Cache-Control": ("`no-store`.", {"type": "string"}),
    "X-Content-Type-Options": ("`nosniff`.", {"type": "string"}),
    "X-Request-Id": ("By it the request is found in the bridge's log.", {"type": "string"}),
}
IDEMPOTENCY_KEY = (
    "Makes the event unique for the tenant and the entity, with or without quotes; else `external_id` does.",
    {"$ref": "#/components/schemas/AnyId"},
)
PREFER = "`respond-async` (RFC 7240): answer 202 at once, and send the event within about a minute."
STATUSES = {
    200: "It was there already, or this call changed it.",
    201: "This call made it.",
    202: "Accepted and kept, not settled yet: do not send another.",
    204: "It is gone.",
    400: "The body cannot be read.",
    401: "No API key, or none that is valid.",
    403: "The key lacks the scope.",
    404: "There is no such record.",
    409: "The same event is being processed right now, or something else must be there first.",
    410: "The event was processed, and its data were erased since. It was not sent.",
    413: "More than 128 KiB; or more than 10 MB, which API Gateway refuses.",
    415: "A content type that is not taken. None at all is taken for JSON.",
    422: "`errors` names every wrong field; or the vendor refused, in its words.",
    429: "The key sends too many requests, or API Gateway throttles. Send the same again.",
    500: "A defect of the bridge. It finishes an accepted event by itself.",
    502: "The vendor answered, but not as documented. An event is kept, and the bridge finds out.",
    503: "Not accepted. Send it again.",
}
ASKED = "The requested data."
FROM_THE_GATEWAY = (413, 429, 500, 503)
"""Statuses that API Gateway answers as well, with a message instead of a problem."""

SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "The API key."},
    "basic": {
        "type": "http",
        "scheme": "basic",
        "description": "The API key as the password, and any user name.",
    },
}
"""Besides the headers of the parameter `ApiKeyHeaders`."""

WEBHOOK_HEADERS: Mapping[str, tuple[str, Schema]] = {
    "webhook-id": ("The same for every try.", {"type": "string"}),
    "webhook-timestamp": ("When this try was made, in epoch seconds.", {"type": "string", "pattern": "^[0-9]+$"}),
    "webhook-signature": (
        "`v1,` and the base64 of HMAC-SHA256 over id, timestamp and body; two of them while there are two secrets.",
        {"type": "string", "pattern": "^v1,[A-Za-z0-9+/=]+( v1,[A-Za-z0-9+/=]+)*$"},
    ),
}
WEBHOOK_RESPONSES = {
    "2XX": "Notified. The body is not read.",
    "410": "Nothing more is sent there until the tenant's secret changes.",
    "default": "It is notified again, after 30 s at first, for 66 hours or so.",
}

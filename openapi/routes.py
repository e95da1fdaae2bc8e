"""What is said of each route besides what template.yaml, the models and docs/api.md say. Written by hand."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel

from connector_receiver.models import Check, LeadSourceSave, PersonSave
from create_job.models import CreateJob
from create_site.models import CreateSite
from crm_bridge.fields import LONGEST_ID
from key_link.models import KeyLink, KeyLinkSearch, StoredKeyLink
from openapi import answers
from operations.models import LinkSearch, Listing, Resolution
from status_update.models import NewStatus

type Answers = Mapping[int, type[BaseModel] | None]
type Schema = Mapping[str, object]

ALWAYS = (401, 403, 429, 500, 503)
"""The problems of every route."""
WITH_BODY = (400, 413, 415, 422)
"""Those of every route that takes a body, besides."""
OF_EVENTS = (410,)
"""Those of every route that takes an event, besides."""
_ID: Schema = {"type": "string", "minLength": 1, "maxLength": LONGEST_ID}
_TEXT: Schema = {"type": "string", "minLength": 1}


def _of(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


_CLUB = {"club_id": ("Our id of the club or the Connector's, as the turn-up settled them.", _TEXT)}
_OPERATION = {"id": ("As in `operation_id`.", {"type": "string", "pattern": answers.OPERATION_ID})}
_KEY_LINK = {"id": ("Rev.io's id of the key link.", {"type": "integer", "minimum": 1, "maximum": 10**18 - 1})}
_PERSON = {**_CLUB, "id": ("Our id of the person, `recordID`, or the Connector's, `uuid`.", _ID)}


@dataclass(frozen=True)
class Route:
    """`answers` are by status, None is no body. Which problems a status may have is in `crm_bridge.errors`."""

    name: str
    """The `operationId`."""
    summary: str
    answers: Answers
    problems: tuple[int, ...] = ()
    """Besides those of every route."""
    description: str = ""
    path: Mapping[str, tuple[str, Schema]] = field(default_factory=dict)
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    is_event: bool = False
    """It is carried to a vendor, now or later."""
    can_be_mapped: bool = False
    """A tenant's mapping may make the body out of something else."""
    speaks_xml: bool = False


def _event(answer: type[BaseModel], *made: int) -> Answers:
    return {**dict.fromkeys(made, answer), 202: answers.Accepted}


def _save(name: str, summary: str, path: Mapping[str, tuple[str, Schema]]) -> Route:
    return Route(
        name,
        summary,
        {201: answers.PersonAnswer, 200: answers.PersonAnswer, 202: answers.AcceptedPerson},
        (404, 409, 502),
        "One call makes and updates. What is left out, or null, stays as it is; an empty text empties it.",
        path=path,
        body=PersonSave,
        is_event=True,
        speaks_xml=True,
    )


PAGES = ("GET /console",)
"""Routes that answer with a page for people, and so are no part of the API."""
ROUTES = {
    "POST /sites": Route(
        "createSite",
        "A new customer",
        _event(answers.SiteAnswer, 201, 200),
        (409, 502),
        "The customer becomes a site at illu. `customer_id` is what makes the event unique.",
        body=CreateSite,
        is_event=True,
        can_be_mapped=True,
    ),
    "POST /jobs": Route(
        "createJob",
        "A new request or ticket",
        _event(answers.JobAnswer, 201, 200),
        (409, 502),
        "The ticket becomes a job at its customer's site. `ticket_id` is what makes the event unique. A customer "
        "without a site, and without `site` in the request, is answered 409.",
        body=CreateJob,
        is_event=True,
        can_be_mapped=True,
    ),
    "GET /key-links": Route(
        "searchKeyLinks",
        "Search key links",
        {200: answers.KeyLinkPage},
        (422, 502),
        "Everything is compared exactly, names without their case. A page may have fewer than `page_size`, even none: "
        "go on while `has_more` is true.",
        query=KeyLinkSearch,
    ),
    "POST /key-links": Route(
        "createKeyLink",
        "An id in another system",
        _event(answers.KeyLinkAnswer, 201, 200),
        (409, 502),
        "All four members together make the event unique. 200 if Rev.io had it already, whoever made it.",
        body=KeyLink,
        is_event=True,
        can_be_mapped=True,
    ),
    "GET /key-links/{id}": Route(
        "getKeyLink", "One key link, as Rev.io has it", {200: StoredKeyLink}, (404, 422, 502), path=_KEY_LINK
    ),
    "PUT /key-links/{id}": Route(
        "changeKeyLink",
        "Change a key link",
        _event(answers.KeyLinkAnswer, 200),
        (404, 409, 502),
        "409 if another key link says the same already, or if a change that was asked for later was made before.",
        path=_KEY_LINK,
        body=KeyLink,
        is_event=True,
        can_be_mapped=True,
    ),
    "DELETE /key-links/{id}": Route(
        "deleteKeyLink",
        "Delete a key link",
        {204: None, 202: answers.Accepted},
        (404, 409, 422, 502),
        "204 also if it was gone already. 404 only if the id is none.",
        path=_KEY_LINK,
        is_event=True,
    ),
    "GET /key-links/systems": Route("listSystems", "The names of systems", {200: answers.Systems}, (422, 502)),
    "GET /key-links/entity-types": Route(
        "listEntityTypes", "The names of entity types", {200: answers.EntityTypes}, (422, 502)
    ),
    "GET /services": Route("listServices", "What the status page shows", {200: answers.Services}, (422, 502)),
    "PUT /services/{service}/status": Route(
        "updateStatus",
        "A service is impaired, down or back",
        _event(answers.StatusAnswer, 200),
        (404, 409, 502),
        "What is older than the last status applied is answered 200 with `ignored`, and changes nothing.",
        path={"service": ("Its id, its key or its name, in whatever case.", _ID)},
        body=NewStatus,
        is_event=True,
        can_be_mapped=True,
    ),
    "POST /connector/clubs/{club_id}/prospects": _save("saveProspect", "The InTouch Connector saves a prospect", _CLUB),
    "PUT /connector/clubs/{club_id}/prospects/{id}": _save(
        "saveKnownProspect", "The InTouch Connector saves a prospect that it knows", _PERSON
    ),
    "POST /connector/clubs/{club_id}/members": _save("saveMember", "The InTouch Connector saves a member", _CLUB),
    "PUT /connector/clubs/{club_id}/members/{id}": _save(
        "saveKnownMember", "The InTouch Connector saves a member that it knows", _PERSON
    ),
    "GET /connector/clubs/{club_id}/staff": Route(
        "listStaff", "Who may own a lead", {200: answers.Staff}, (404, 422, 502), path=_CLUB, speaks_xml=True
    ),
    "GET /connector/clubs/{club_id}/lead-sources": Route(
        "listLeadSources",
        "Where leads come from",
        {200: answers.LeadSources},
        (404, 422, 502),
        path=_CLUB,
        speaks_xml=True,
    ),
    "POST /connector/clubs/{club_id}/lead-sources": Route(
        "createLeadSource",
        "A new lead source",
        {201: answers.LeadSourceAnswer, 200: answers.LeadSourceAnswer, 202: answers.AcceptedLeadSource},
        (404, 409, 502),
        "If there is one of this name, in whatever case, the answer is 200 and that one.",
        path=_CLUB,
        body=LeadSourceSave,
        is_event=True,
        speaks_xml=True,
    ),
    "PUT /connector/clubs/{club_id}/lead-sources/{id}": Route(
        "changeLeadSource",
        "Another name for a lead source, or no longer in use",
        {200: answers.LeadSourceAnswer, 202: answers.AcceptedLeadSource},
        (404, 409, 502),
        path={**_CLUB, "id": ("As in the list.", _TEXT)},
        body=LeadSourceSave,
        is_event=True,
        speaks_xml=True,
    ),
    "GET /connector/clubs/{club_id}/check": Route(
        "checkConnector",
        "Whether the set-up is right",
        {200: answers.Checked},
        (404, 422, 502),
        "Signs in to Egito, and compares the tenant's maps with the records that are named. No value is shown.",
        path=_CLUB,
        query=Check,
        speaks_xml=True,
    ),
    "GET /operations": Route(
        "listOperations",
        "What is on its way, and what is stuck",
        {200: answers.OperationPage},
        (422,),
        "Without `state` what needs a person comes first. A change shows up a moment later. `id` searches instead.",
        query=Listing,
    ),
    "GET /operations/summary": Route(
        "summarizeOperations",
        "How everything stands",
        {200: answers.Summary},
        description="Out of the first 500 operations of each state in the order of the list, so it costs the same "
        "however many there are.",
    ),
    "GET /operations/{id}": Route(
        "getOperation",
        "What became of an event",
        {200: answers.ShownOperationWithPayload},
        (404,),
        path=_OPERATION,
    ),
    "POST /operations/{id}/resolve": Route(
        "resolveOperation",
        "Decide what needs review, or undo a link",
        {200: answers.ShownOperation},
        (404, 409),
        "`link`: the vendor has it, under this id, which is verified at the vendor. 422 if it is not the right one; "
        "also if it cannot be verified, until `confirmed` is true; 503 if the vendor does not answer. `retry`: the "
        "vendor does not have it. `discard`: it is not to be done. `unlink`: the link that a person or a look-up made "
        "is wrong; it is deleted, and the operation needs review again. 409 if the operation is in no state for this, "
        "or the id is linked to something else.",
        path=_OPERATION,
        body=Resolution,
    ),
    "GET /links": Route(
        "searchLinks",
        "Which id belongs to which, also of ids with `/`",
        {200: answers.Partners},
        (404, 422),
        "The same as `GET /links/{system}/{entity}/{id}`. API Gateway decodes `%2F` in an address "
        "before it looks for the route.",
        query=LinkSearch,
    ),
    "GET /links/{system}/{entity}/{id}": Route(
        "getLinks",
        "Which id belongs to which",
        {200: answers.Partners},
        (404, 422),
        "`/links/crm/customer/C-1001` gives the customer's site. An id with `/` is found by `GET /links`.",
        path={
            "system": ("In whatever case: `crm`, `illu`.", _of("Text")),
            "entity": ("In whatever case: `customer`, `site`.", _of("Text")),
            "id": ("The id there.", _of("AnyId")),
        },
    ),
}

XML_ROOTS: Mapping[type[BaseModel], str] = {PersonSave: "user", LeadSourceSave: "leadSource"}
"""What the root of a body in XML is called; in truth any name will do."""
HEADERS: Mapping[str, tuple[str, Schema]] = {
    "Location": ("The operation, to be asked what became of it.", {"type": "string", "format": "uri-reference"}),
    "Retry-After": ("Seconds after which to ask again.", {"type": "integer", "minimum": 0}),
    "WWW-Authenticate": ("`Bearer`.", {"type": "string"}),
    "Cache-Control": ("`no-store`.", {"type": "string"}),
    "X-Content-Type-Options": ("`nosniff`.", {"type": "string"}),
}
PREFER = "`respond-async` (RFC 7240): answer 202 at once, and carry the event within about a minute."
STATUSES = {
    200: "It was there already, or this call changed it.",
    201: "This call made it.",
    202: "Accepted and kept, not settled yet: do not send another.",
    204: "It is gone.",
    400: "The body cannot be read.",
    401: "No API key, or none that is valid.",
    403: "The key lacks the scope.",
    404: "What is addressed is not there.",
    409: "The same event is being carried right now, or something else must be there first.",
    410: "The event was processed, and its data were erased since. It was not sent.",
    413: "More than 128 KiB; or more than 10 MB, which API Gateway refuses.",
    415: "A content type that is not taken. None at all is taken for JSON.",
    422: "`errors` names every wrong field; or the vendor refused, in its words.",
    429: "The key sends too many requests, or API Gateway throttles. Send the same again.",
    500: "The bridge failed. What it had accepted heals by itself.",
    502: "The vendor answered, but not as documented. An event is kept, and the bridge finds out.",
    503: "Not accepted. Send it again.",
}
ASKED = "What was asked for."
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
WEBHOOK_ANSWERS = {
    "2XX": "Told. The body is not read.",
    "410": "Nothing more is sent there until the tenant's secret changes.",
    "default": "It is told again, after 30 s at first, for 66 hours or so.",
}

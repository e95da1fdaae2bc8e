"""Entry of connector_receiver: HTTP and queue events in, answers out."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from connector_receiver import wire
from connector_receiver.flow import ConnectorFlow, Held, Receiver
from connector_receiver.lead_sources import MAX_AGE, named
from connector_receiver.models import (
    ChangeLeadSource,
    Check,
    ConnectorCommand,
    CreateLeadSource,
    LeadSource,
    LeadSourceSave,
    PersonSave,
    SavePerson,
)
from connector_receiver.people import Hasher, People
from crm_bridge.api import Context, Request, Response, carry, respond, told
from crm_bridge.errors import (
    FieldError,
    InvalidError,
    NoSuchRecordError,
    NotConfiguredError,
    NotFoundError,
    ProblemError,
    RefusedError,
)
from crm_bridge.operations import State, operation_id
from crm_bridge.runtime import runtime
from crm_bridge.settings import ConnectorSettings, PeopleMap
from crm_bridge.worker import consume

OUR_ID = "p_[0-9a-f]{32}"
LATER = "Accepted, and saved as soon as Egito takes it."


def flow() -> ConnectorFlow:
    made = runtime()
    return ConnectorFlow(
        Held(made.links, made.operations, made.engine, made.accounts, made.people, made.tokens, made.memory, made.clock)
    )


def _ask[T](request: Request, question: Callable[[Receiver], T]) -> T:
    return runtime().engine.signed_in(flow(), request.caller.tenant, request.deadline, question)


def _club(request: Request) -> tuple[str, ConnectorSettings]:
    """Our id of the club in the address. Raises NotFoundError, NotConfiguredError."""
    connector = runtime().engine.tenants.get(request.caller.tenant).connector
    if connector is None:
        raise NotConfiguredError("The tenant's secret has no connector block. Add it, then send again.")
    club_id = connector.club(request.path["club_id"])
    if club_id is None:
        raise NotFoundError("This tenant has no club with the id in the address.")
    return club_id, connector


def _expect_agreement(club_id: str, connector: ConnectorSettings, sent: PersonSave | LeadSourceSave) -> None:
    """Raises InvalidError if the body says another customer or club than the key and the address."""
    wrong = []
    if sent.client_id not in (None, connector.client_id):
        wrong.append(FieldError("clientID", "is not the client that this key belongs to"))
    if sent.club_id is not None and connector.club(sent.club_id) != club_id:
        wrong.append(FieldError("clubID", "is not the club in the address"))
    if wrong:
        raise InvalidError("Correct the fields named in errors.", fields=wrong)


# ---------------------------------------------------------------------- people


def _save(request: Request) -> Response:
    club_id, connector = _club(request)
    sent = wire.read(request, PersonSave)
    _expect_agreement(club_id, connector, sent)
    person_id, connector_id = _ids(request, sent)
    tenant, arrived_at, fields = request.caller.tenant, _now(), sent.fields()

    def command(person_id: str) -> ConnectorCommand:
        return ConnectorCommand(SavePerson(club_id=club_id, person_id=person_id, fields=fields, arrived_at=arrived_at))

    recognised = People(runtime().people, runtime().links, tenant, club_id, runtime().clock).recognised(
        Hasher(connector.match_key.get_secret_value()).traits(fields),
        person_id=person_id,
        connector_id=connector_id,
        by=lambda person_id: operation_id(tenant, ConnectorFlow.name, flow().key(command(person_id))),
    )
    if recognised is None:
        raise NotFoundError("This tenant has no person with this recordID. Send the save without it.")
    try:
        outcome = carry(runtime().engine, flow(), request, command(recognised.person_id))
        response = told(outcome, done=200)
    except ProblemError as problem:
        problem.extensions["recordID"] = recognised.person_id
        raise
    body = response.body if isinstance(response.body, dict) else {}
    if outcome.operation.state is not State.SUCCEEDED:
        body |= {"result": "WARNING", "message": LATER, "recordID": recognised.person_id}
    elif recognised.several:
        body |= {"result": "WARNING", "message": f"{body['message']} Several people have this name and address."}
    return Response(201 if body.pop("created", False) else response.status, body, response.headers)


def _ids(request: Request, sent: PersonSave) -> tuple[str | None, str | None]:
    """Our id and the Connector's, as far as they are told; that in the address may be either. Raises ProblemError."""
    person_id, connector_id = sent.record_id, sent.uuid
    if in_address := request.path.get("id"):
        is_ours = re.fullmatch(OUR_ID, in_address)
        name, told = ("recordID", person_id) if is_ours else ("uuid", connector_id)
        if told not in (None, in_address):
            raise InvalidError(
                "Correct the fields named in errors.", fields=[FieldError(name, "is not the one in the address")]
            )
        if is_ours:
            person_id = in_address
        else:
            connector_id = in_address
    if person_id is not None and not re.fullmatch(OUR_ID, person_id):
        raise InvalidError(
            "Correct the fields named in errors.", fields=[FieldError("recordID", "is no id that the bridge has given")]
        )
    return person_id, connector_id


# ---------------------------------------------------------------------- staff and lead sources


def _staff(request: Request) -> Response:
    _club(request)
    staff = _ask(request, lambda receiver: receiver.staff())
    return Response(200, {"staff": [one.model_dump() for one in staff]})


def _lead_sources(request: Request) -> Response:
    _club(request)
    found = _ask(request, lambda receiver: receiver.lead_sources.all())
    return Response(200, {"leadSources": [one.model_dump() for one in found]})


def _create_lead_source(request: Request) -> Response:
    club_id, connector = _club(request)
    sent = wire.read(request, LeadSourceSave)
    _expect_agreement(club_id, connector, sent)
    dictionary = _writable(request)
    if there := _ask(request, lambda receiver: named(receiver.lead_sources.all(), sent.name, by_id=False)):
        return _told(there, 200)
    if dictionary is None:
        new, is_new = _ask(request, lambda receiver: receiver.lead_sources.add(sent.name))
        return _told(new, 201 if is_new else 200)
    command = ConnectorCommand(CreateLeadSource(dictionary=dictionary, name=sent.name))
    _forget_what_is_gone(request, command)
    return _with_result(told(carry(runtime().engine, flow(), request, command)))


def _forget_what_is_gone(request: Request, command: ConnectorCommand) -> None:
    """Egito does not list it. If it was made a while ago, somebody has deleted or renamed it since, so make it anew."""
    known = runtime().operations.get(operation_id(request.caller.tenant, ConnectorFlow.name, flow().key(command)))
    lag = _ask(request, lambda receiver: receiver.search_lag)
    if known and known.state is State.SUCCEEDED and known.updated_at + lag < runtime().clock():
        runtime().engine.withdraw(known, by="Egito, which no longer has it")


def _change_lead_source(request: Request) -> Response:
    club_id, connector = _club(request)
    sent = wire.read(request, LeadSourceSave)
    _expect_agreement(club_id, connector, sent)
    lead_source_id, dictionary = request.path["id"], _writable(request)
    changed = LeadSource(id=lead_source_id, name=sent.name, active=sent.active)
    there = _ask(request, lambda receiver: receiver.lead_sources.all())
    if lead_source_id not in [one.id for one in there]:
        raise NotFoundError("There is no lead source with this id.")
    same_name = named(there, sent.name, by_id=False)
    if same_name and same_name.id != lead_source_id:
        raise InvalidError(
            "Correct the fields named in errors.", fields=[FieldError("name", "is another lead source's")]
        )
    entries = _ask(request, lambda receiver: receiver.lead_sources.entries(MAX_AGE))  # read just now
    is_egitos = dictionary is not None and lead_source_id in [entry.id for entry in entries]
    _ask(request, lambda receiver: receiver.lead_sources.keep(changed, name_is_egitos=is_egitos))
    if not is_egitos or dictionary is None:
        return _told(changed, 200)
    command = ChangeLeadSource(dictionary=dictionary, id=lead_source_id, name=sent.name, asked_at=_now())
    response = told(carry(runtime().engine, flow(), request, ConnectorCommand(command)), done=200)
    return _with_result(response, {"active": sent.active})


def _writable(request: Request) -> str | None:
    """Egito's dictionary of lead sources, if it can be written."""
    where = _ask(request, lambda receiver: receiver.settings.lead_sources)
    return where.dictionary if where.writable else None


def _told(lead_source: LeadSource, status: int) -> Response:
    return _with_result(Response(status, lead_source.model_dump()))


def _with_result(response: Response, more: Mapping[str, object] | None = None) -> Response:
    body = response.body if isinstance(response.body, dict) else {}
    result = (
        {"result": "INFO", "message": "Saved."} if response.status < 202 else {"result": "WARNING", "message": LATER}
    )
    return Response(
        response.status, {**result, **body, **(more or {} if response.status < 202 else {})}, response.headers
    )


# ---------------------------------------------------------------------- set-up


def _check(request: Request) -> Response:
    """Whether the bridge gets into Egito, and whether the maps fit. Names of fields only: the values are people's."""
    _, connector = _club(request)
    asked = request.query_as(Check)

    def look(receiver: Receiver) -> dict[str, object]:
        settings = receiver.settings
        maps = {"prospect": (settings.prospects, asked.prospect), "member": (settings.members, asked.member)}
        return {
            "turnUp": {
                "clientID": connector.client_id,
                "scheme": connector.scheme,
                "host": connector.host,
                "user": connector.user,
                "clubs": [{"clubID": ours, "connectorID": club.connector_id} for ours, club in connector.clubs.items()],
            },
            "maps": {kind: _compared(receiver, a_map, record_id) for kind, (a_map, record_id) in maps.items()},
            "staff": _counted(lambda: receiver.staff()),
            "leadSources": _counted(lambda: receiver.lead_sources.all()),
        }

    return Response(200, _ask(request, look))


def _compared(receiver: Receiver, a_map: PeopleMap, record_id: str | None) -> dict[str, object]:
    if record_id is None:
        return {"entity": a_map.entity, "compared": False, "missing": [], "notMapped": []}
    try:
        record = receiver.egito.get(a_map.entity, record_id)
    except NoSuchRecordError as error:
        raise NotFoundError(error.message) from None
    wanted = {target.field for target in a_map.fields.values()} | a_map.defaults.keys()
    wanted |= {a_map.reference} if a_map.reference else set()
    return {
        "entity": a_map.entity,
        "compared": True,
        "missing": sorted(wanted - record.keys()),
        "notMapped": sorted(record.keys() - wanted - {"id"}),
    }


def _counted(question: Callable[[], list[Any]]) -> dict[str, object]:
    try:
        return {"count": len(question())}
    except RefusedError as error:
        return {"count": None, "reason": error.message}


def _now() -> int:
    return int(runtime().clock() * 1_000_000)


_BASE = "/connector/clubs/{club_id}"
ROUTES = {
    f"POST {_BASE}/prospects": _save,
    f"PUT {_BASE}/prospects/{{id}}": _save,
    f"POST {_BASE}/members": _save,
    f"PUT {_BASE}/members/{{id}}": _save,
    f"GET {_BASE}/staff": _staff,
    f"GET {_BASE}/lead-sources": _lead_sources,
    f"POST {_BASE}/lead-sources": _create_lead_source,
    f"PUT {_BASE}/lead-sources/{{id}}": _change_lead_source,
    f"GET {_BASE}/check": _check,
}


def lambda_handler(event: Mapping[str, Any], context: Context) -> Mapping[str, object]:
    if "Records" in event:
        return consume(event, context, runtime().engine, flow())
    return respond(event, context, ROUTES, scope=ConnectorFlow.name, keys=runtime().keys, language=wire.told)

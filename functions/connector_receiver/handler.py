"""Entry of connector_receiver: HTTP and queue events in, responses out."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any

from pydantic import TypeAdapter, ValidationError

from connector_receiver import record_routes, wire
from connector_receiver.lead_source_flows import ChangeLeadSource, CreateLeadSource
from connector_receiver.lead_sources import MAX_AGE, matching
from connector_receiver.models import (
    PERSON_ID,
    Check,
    LeadSource,
    LeadSourceName,
    LeadSourceSave,
    NewLeadSource,
    PersonSave,
    PersonToSave,
)
from connector_receiver.people import MOST_TRIES, Hasher, People, Recognised
from connector_receiver.person_records import CreatePersonRecord, Records
from connector_receiver.receiver import Receiver
from connector_receiver.records import ChangeRecord, CreateRecord, DeleteRecord
from connector_receiver.saves import SavePerson
from connector_receiver.snapshots import SnapshotReader
from crm_bridge import Function
from crm_bridge.errors import (
    FieldError,
    InvalidError,
    NoSuchRecordError,
    NotConfiguredError,
    NotFoundError,
    OvertakenError,
    ProblemError,
    RefusedError,
    StorageError,
)
from crm_bridge.fields import LONGEST_ID, Id, may_have_become
from crm_bridge.ids import canonical
from crm_bridge.inbound.api import Request, Response, ask, run, to_response
from crm_bridge.runtime import runtime
from crm_bridge.storage.operation import Operation, State
from crm_bridge.vendors.connector_settings import ConnectorSettings
from crm_bridge.vendors.egito_settings import EgitoSettings, PeopleMap

LATER = "Accepted, and saved as soon as Egito takes it."


FUNCTION = "connector_receiver"


def _ask[T](request: Request, question: Callable[[Receiver], T]) -> T:
    return ask(request, SavePerson, lambda flow, egito: question(Receiver(flow.context, egito)))


def _club(request: Request) -> tuple[str, ConnectorSettings]:
    """Return our id of the club in the address. Raises NotFoundError, NotConfiguredError."""
    connector = runtime().tenants.get(request.caller.tenant, FUNCTION).require(ConnectorSettings)
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
        raise InvalidError.of(*wrong)


# ---------------------------------------------------------------------- people


def _save(request: Request) -> Response:
    club_id, connector = _club(request)
    sent = wire.read(request, PersonSave)
    _expect_agreement(club_id, connector, sent)
    person_id, connector_id = _ids(request, sent)
    tenant, arrived_at, fields = request.caller.tenant, runtime().clock.microseconds(), sent.fields()
    asks = connector.ask_about_namesakes
    reader = SnapshotReader(runtime(), tenant, _egito_settings(tenant), bool(fields.get("leadSource")))
    people = People(
        runtime().people,
        runtime().links,
        tenant,
        club_id,
        runtime().clock,
        is_undecided=partial(_ask_if_undecided, request) if asks else None,
        also=reader.readings,
        besides=reader.lead_sources,
    )
    hasher = Hasher(connector.match_key.get_secret_value(), connector.phone_country)
    derived_id = hasher.person_id(tenant, club_id, connector_id) if connector_id else None
    for number in range(MOST_TRIES):
        recognised = people.look(
            hasher.traits(fields),
            person_id=person_id,
            connector_id=connector_id,
            derived_id=derived_id,
            again=number > 0,
        )
        if recognised is None:
            raise NotFoundError("This tenant has no person with this recordID. Send the save without it.")
        save = PersonToSave(
            club_id=club_id,
            person_id=recognised.person_id,
            fields=fields,
            arrived_at=arrived_at,
            has_namesake=asks and recognised.namesake,
        ).with_snapshot(reader.snapshot(recognised))
        is_stored = recognised.known
        try:
            outcome = run(request, SavePerson, save)
            is_stored = True
            response = to_response(outcome, SavePerson)
            break
        except OvertakenError:  # somebody else was quicker in writing what was read
            continue
        except ProblemError as problem:
            if is_stored:
                problem.extensions["recordID"] = recognised.person_id
            raise
    else:
        raise StorageError("Too many saves of people with this name at once. Send the same request again.")
    body = response.body if isinstance(response.body, dict) else {}
    doubt = _doubt(recognised)
    if outcome.operation.state is not State.SUCCEEDED:
        message = f"{LATER} {doubt}".rstrip()
        body |= {"result": "WARNING", "message": message, "recordID": recognised.person_id}
    elif doubt:
        body |= {"result": "WARNING", "message": f"{body['message']} {doubt}"}
    elif not (recognised.known or connector_id or fields.get("email") or fields.get("mobile")):
        body["message"] += " Sent again without this recordID, it becomes another record: no uuid, e-mail or mobile."
    return Response(201 if body.pop("created", False) else response.status, body, response.headers)


def _egito_settings(tenant: str) -> EgitoSettings | None:
    try:
        return runtime().tenants.get(tenant, FUNCTION).require(EgitoSettings)
    except NotConfiguredError:  # the save itself says so
        return None


def _ask_if_undecided(request: Request, person_id: str) -> bool:
    return ask(request, CreatePersonRecord, lambda flow, egito: Records(flow.context, egito, person_id).is_undecided())


def _doubt(recognised: Recognised) -> str:
    """Return what the Connector is to know of a person who may be somebody else; empty if there is no doubt."""
    if recognised.crowded:
        return "Too many people of this name are known: send this one with its recordID, or it becomes another record."
    if recognised.several:
        return "Several people have this name and address."
    if recognised.namesake:
        return "Somebody of this name is known in this club, and nothing that was sent tells them apart."
    return ""


def _ids(request: Request, sent: PersonSave) -> tuple[str | None, str | None]:
    """Return our id and the Connector's, as far as they were sent; the address may have either. Raises ProblemError."""
    person_id, connector_id = sent.record_id, canonical(sent.uuid) if sent.uuid else None
    if "id" in request.path:
        in_address = _id_in_address(request)
        is_ours = re.fullmatch(PERSON_ID, in_address)
        name, told = ("recordID", person_id) if is_ours else ("uuid", connector_id)
        if told not in (None, in_address):
            raise InvalidError.of(FieldError(name, "is not the one in the address"))
        if is_ours:
            person_id = in_address
        else:
            connector_id = in_address
    if person_id is not None and not re.fullmatch(PERSON_ID, person_id):
        raise InvalidError.of(FieldError("recordID", "is not an id of the bridge"))
    return person_id, connector_id


def _id_in_address(request: Request) -> str:
    try:
        return canonical(TypeAdapter(Id).validate_python(request.path["id"]))
    except ValidationError as error:
        detail = error.errors(include_url=False, include_input=False)[0]
        is_ours = detail["type"] == "value_error"
        message = (
            detail["msg"].removeprefix("Value error, ") if is_ours else f"must be text of up to {LONGEST_ID} characters"
        )
        raise InvalidError.of(FieldError("uuid", f"in the address {message}")) from None


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
    if dictionary is None:
        saved, is_new = _ask(request, lambda receiver: receiver.lead_sources.add(sent.name))
        response = Response(201 if is_new else 200, saved.model_dump())
    else:
        response = _create_in_dictionary(request, dictionary, sent.name)
    return _with_result(_keep(request, response, active=sent.active, is_egitos=dictionary is not None))


def _create_in_dictionary(request: Request, dictionary: str, name: str) -> Response:
    command = NewLeadSource(dictionary=dictionary, name=name)
    outcome = run(request, CreateLeadSource, command, notes_changed=False)
    known = outcome.operation
    if not outcome.ran and known.result:  # what it made may have another name by now, which only Egito can tell
        there = _ask(request, lambda receiver: receiver.lead_sources.in_dictionary(name))
        if there:
            return Response(200, there.model_dump())
        _forget_if_gone(request, known, known.result)
        outcome = run(request, CreateLeadSource, command, notes_changed=False)
    return to_response(outcome, CreateLeadSource)


def _forget_if_gone(request: Request, known: Operation, answer: str) -> None:
    """Withdraw an event if its lead source was renamed or deleted at Egito, so that it is made again.

    It was not renamed if Egito only altered the name as it stored it.
    """
    made = LeadSource.model_validate_json(answer)
    receiver = _ask(request, lambda receiver: receiver)
    names = [entry.name for entry in receiver.lead_sources.entries(MAX_AGE) if entry.id == made.id]  # read just now
    is_elsewhere = known.sent_to != receiver.egito.destination  # there the same id is another's
    if names and not is_elsewhere and may_have_become(made.name, names[0]):
        return
    is_visible = known.updated_at + receiver.egito.search_lag < runtime().clock()
    if is_elsewhere or names or (is_visible and receiver.settings.lists_everything):
        runtime().engine.withdraw(known, by="Egito, which no longer has it")


def _change_lead_source(request: Request) -> Response:
    club_id, connector = _club(request)
    sent = wire.read(request, LeadSourceSave)
    _expect_agreement(club_id, connector, sent)
    there = _ask(request, lambda receiver: receiver.lead_sources.all())
    before = next((one for one in there if one.id == request.path["id"]), None)
    if before is None:
        raise NotFoundError("There is no lead source with this id.")
    same_name = matching(there, sent.name, by_id=False)
    if same_name and same_name.id != before.id:
        raise InvalidError.of(FieldError("name", "belongs to another lead source"))
    changed = before.model_copy(update={"name": sent.name})
    entries = _ask(request, lambda receiver: receiver.lead_sources.entries(MAX_AGE))  # read just now
    dictionary = _writable(request)
    is_egitos = dictionary is not None and before.id in [entry.id for entry in entries]
    response = Response(200, changed.model_dump())
    if is_egitos and dictionary is not None:
        command = LeadSourceName(
            dictionary=dictionary, id=before.id, name=sent.name, asked_at=runtime().clock.microseconds()
        )
        response = to_response(run(request, ChangeLeadSource, command), ChangeLeadSource)
    active = before.active if sent.active is None else sent.active
    if response.status == HTTPStatus.ACCEPTED:  # only the name is still on its way
        _keep(request, Response(200, changed.model_dump()), active=active, is_egitos=is_egitos)
        return _with_result(response)
    return _with_result(_keep(request, response, active=active, is_egitos=is_egitos))


def _keep(request: Request, response: Response, *, active: bool | None, is_egitos: bool) -> Response:
    """Note what Egito cannot store, whether it is in use and names of our own, and return the response."""
    body = response.body if isinstance(response.body, dict) else {}
    if "id" not in body:  # it is not made yet; the Connector saves it again, or does without
        return response
    saved = LeadSource(id=body["id"], name=body["name"], active=body["active"] if active is None else active)
    if active is not None:
        _ask(request, lambda receiver: receiver.lead_sources.keep(saved, name_is_egitos=is_egitos))
    return Response(response.status, {**body, **saved.model_dump()}, response.headers)


def _writable(request: Request) -> str | None:
    """Return Egito's dictionary of lead sources, if it can be written."""
    where = _ask(request, lambda receiver: receiver.settings.lead_sources)
    return where.dictionary if where.writable else None


def _with_result(response: Response) -> Response:
    body = response.body if isinstance(response.body, dict) else {}
    is_saved = response.status < HTTPStatus.ACCEPTED
    result = {"result": "INFO", "message": "Saved."} if is_saved else {"result": "WARNING", "message": LATER}
    return Response(response.status, {**result, **body}, response.headers)


# ---------------------------------------------------------------------- set-up


def _check(request: Request) -> Response:
    """Return whether Egito accepts the login and the maps fit. Names of fields only: the values are people's."""
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
            "maps": {kind: _compare(receiver, a_map, record_id) for kind, (a_map, record_id) in maps.items()},
            "staff": _count(receiver.staff),
            "leadSources": _count(receiver.lead_sources.all),
        }

    return Response(200, _ask(request, look))


def _compare(receiver: Receiver, a_map: PeopleMap, record_id: str | None) -> dict[str, object]:
    if record_id is None:
        return {"entity": a_map.entity, "compared": False, "missing": [], "notMapped": []}
    try:
        record = receiver.egito.record(a_map.entity, record_id)
    except NoSuchRecordError as error:
        raise NotFoundError(error.message) from None
    missing, not_mapped = a_map.compared(record, *receiver.connector.club_fields())
    return {"entity": a_map.entity, "compared": True, "missing": missing, "notMapped": not_mapped}


def _count(question: Callable[[], list[Any]]) -> dict[str, object]:
    try:
        return {"count": len(question())}
    except RefusedError as error:
        return {"count": None, "reason": error.message}


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


def _language(route: str, headers: Mapping[str, str], response: Response) -> Response:
    """Return the response in the Connector's language on its routes; everybody else gets JSON."""
    return wire.translated(headers, response) if _BASE in route else response


lambda_handler = Function(
    FUNCTION,
    SavePerson,
    CreatePersonRecord,
    CreateLeadSource,
    ChangeLeadSource,
    CreateRecord,
    ChangeRecord,
    DeleteRecord,
    routes=ROUTES | record_routes.ROUTES,
    scopes=record_routes.SCOPES,
    language=_language,
)

"""The routes of Egito's records, which callers use without the Connector. What is read is passed on and never kept."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime

from pydantic import TypeAdapter, ValidationError

from connector_receiver.record_models import (
    DictionaryEntries,
    DictionaryEntry,
    EgitoRecord,
    ExistingRecord,
    NewRecord,
    RecordChange,
    RecordCreation,
    RecordDeletion,
    RecordList,
    RecordPage,
    RecordUpdate,
)
from connector_receiver.records import ChangeRecord, CreateRecord, DeleteRecord, change_of
from crm_bridge.errors import FieldError, InvalidError, NotFoundError
from crm_bridge.fields import LONGEST_ID, Id
from crm_bridge.inbound.api import JsonResponse, Request, Response, ask, run, to_response
from crm_bridge.runtime import runtime
from crm_bridge.storage.operation import Operation, State
from crm_bridge.times import expect_past
from crm_bridge.vendors.egito import Record, usable_id
from crm_bridge.vendors.egito_settings import EgitoName, EgitoSettings

SCOPE = "records"
LARGEST_RESPONSE = 5 * 1024 * 1024
"""Bytes. Lambda returns at most 6 MB: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html"""


def _create_record(request: Request) -> Response:
    entity, sent = _entity(request), request.parse(RecordCreation)
    key = _idempotency_key(request) or sent.external_id
    if key is None:
        raise InvalidError(
            "An event key is required: send the header Idempotency-Key, or external_id.",
            fields=[FieldError("external_id", "is required without the header Idempotency-Key")],
        )
    if sent.changed_at:
        expect_past("changed_at", sent.changed_at, datetime.fromtimestamp(runtime().clock(), UTC))
    command = NewRecord(
        entity=entity, key=key, external_id=sent.external_id, changed_at=sent.changed_at, fields=sent.fields
    )
    change = change_of(command, _egito(request), arrived_at=runtime().clock.microseconds())
    if isinstance(change, str):
        return to_response(replace(run(request, CreateRecord, command), not_applied=change), CreateRecord)
    outcome = run(request, CreateRecord, command, notes_changed=False)
    if not outcome.changed:
        there = _existing(outcome.operation)
        if there is None:
            return to_response(outcome, CreateRecord)
        if there.ignored:
            return to_response(replace(outcome, changed=True), CreateRecord)
        change = change.model_copy(update={"id": there.id})  # it was made before the new record's event was done
    return to_response(replace(run(request, ChangeRecord, change), changed=True, applied=True), ChangeRecord)


def _existing(operation: Operation) -> ExistingRecord | None:
    """Return the record that another event had made when this one was done; None if there was none."""
    if operation.state is not State.SUCCEEDED or operation.links or operation.result is None:
        return None
    return ExistingRecord.model_validate_json(operation.result)


def _change_record(request: Request) -> Response:
    entity, record_id, sent = _entity(request), _id(request), request.parse(RecordUpdate)
    now = runtime().clock.microseconds()
    command = RecordChange(entity=entity, id=record_id, fields=sent.fields, asked_at=now, arrived_at=now)
    return to_response(run(request, ChangeRecord, command), ChangeRecord)


def _delete_record(request: Request) -> Response:
    command = RecordDeletion(entity=_entity(request), id=_id(request), asked_at=runtime().clock.microseconds())
    outcome = run(request, DeleteRecord, command)
    is_done = outcome.operation.state is State.SUCCEEDED
    return Response(204, None) if is_done else to_response(outcome, DeleteRecord)


def _get_record(request: Request) -> JsonResponse[EgitoRecord]:
    """One of Egito's records

    As Egito has it now. Nothing of it is stored."""
    entity, record_id = _entity(request), _id(request)
    record = ask(request, CreateRecord, lambda _, egito: egito.record(entity, record_id))
    return _bounded(JsonResponse(200, _to_response(entity, record)))


def _list_records(request: Request) -> JsonResponse[RecordList]:
    """A part of Egito's records of an entity

    In Egito's order. Go on while `has_more` is true. Nothing of it is stored."""
    entity, wanted = _entity(request), request.query_as(RecordPage)
    found, has_more = ask(request, CreateRecord, lambda _, egito: egito.page(entity, wanted.page, wanted.page_size))
    records = [_to_response(entity, record) for record in found]
    listed = RecordList(records=records, page=wanted.page, page_size=wanted.page_size, has_more=has_more)
    too_large = FieldError("page_size", "must be smaller, because these records are large")
    return _bounded(JsonResponse(200, listed), too_large)


def _list_dictionary(request: Request) -> JsonResponse[DictionaryEntries]:
    """The entries of one of Egito's dictionaries

    The values that a field of a record may have."""
    try:
        name = TypeAdapter(EgitoName).validate_python(request.path["type"])
    except ValidationError:
        raise NotFoundError("There is no dictionary of this type. A type looks like a field name.") from None
    found = ask(request, CreateRecord, lambda _, egito: egito.dictionary(name))
    entries = [DictionaryEntry(id=entry.id, name=entry.name) for entry in found]
    return _bounded(JsonResponse(200, DictionaryEntries(type=name, entries=entries)))


def _entity(request: Request) -> str:
    """Return the entity in the address. Raises NotFoundError if the tenant's settings do not allow it."""
    entity = request.path["entity"]
    allowed = _egito(request).records
    if entity not in allowed:
        raise NotFoundError(f"The tenant's settings (egito.records) allow only {', '.join(sorted(allowed)) or 'none'}.")
    return entity


def _egito(request: Request) -> EgitoSettings:
    return runtime().tenants.get(request.caller.tenant, CreateRecord.function).require(EgitoSettings)


def _id(request: Request) -> str:
    try:
        return TypeAdapter(Id).validate_python(request.path["id"])
    except ValidationError:
        raise NotFoundError(f"There is no such record: an id is text of up to {LONGEST_ID} characters.") from None


def _idempotency_key(request: Request) -> str | None:
    """Return the header's key: the header is a string in quotes by its draft, and mostly sent without them.

    Source: https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/, and of the string
    https://www.rfc-editor.org/rfc/rfc9651#section-3.3.3
    """
    sent = request.headers.get("idempotency-key")
    if sent is None:
        return None
    quoted = re.fullmatch(r'\s*"(.*)"\s*', sent)
    try:
        key = re.sub(r'\\(["\\])', r"\1", quoted[1]) if quoted else sent
        return TypeAdapter(Id).validate_python(key)
    except ValidationError:
        message = f"must be text of up to {LONGEST_ID} visible characters"
        raise InvalidError(
            "Correct the header Idempotency-Key.", fields=[FieldError("Idempotency-Key", message)]
        ) from None


def _to_response(entity: str, record: Record) -> EgitoRecord:
    fields = {name: value for name, value in record.items() if name != "id"}
    return EgitoRecord(entity=entity, id=usable_id(record), fields=fields)


def _bounded[R: JsonResponse[EgitoRecord] | JsonResponse[RecordList] | JsonResponse[DictionaryEntries]](
    response: R, *too_large: FieldError
) -> R:
    """Return the response. Raises InvalidError if Lambda cannot return it."""
    if len(json.dumps(response.body)) > LARGEST_RESPONSE:
        raise InvalidError("This is more than the bridge can return at once.", fields=too_large)
    return response


ROUTES = {
    "POST /records/{entity}": _create_record,
    "GET /records/{entity}": _list_records,
    "GET /records/{entity}/{id}": _get_record,
    "PUT /records/{entity}/{id}": _change_record,
    "DELETE /records/{entity}/{id}": _delete_record,
    "GET /dictionaries/{type}": _list_dictionary,
}
SCOPES = dict.fromkeys(ROUTES, SCOPE)

"""The event that a tenant's webhook receives when an operation settles whose caller got a 202.

It is an operation of its own, of the flow `webhook`. The transaction that settles an operation also writes the one that
reports it, so it is neither lost nor made twice, and it is sent and retried as all events are.
"""

import json

from pydantic import BaseModel, ConfigDict, JsonValue

from crm_bridge.storage.operation import Operation, State, as_time, fingerprint, operation_id

FLOW = "webhook"


class WebhookEvent(BaseModel):
    """What is sent, but for its `id`, which is in a header.

    Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
    """

    model_config = ConfigDict(frozen=True, defer_build=True)

    id: str
    """The same for every try, and without a full stop, which separates it from what else is signed."""
    type: str
    timestamp: str
    data: dict[str, JsonValue]


def webhook(settled: Operation) -> Operation:
    """Return the operation that tells of `settled`, due at once."""
    # One lease settles an operation once, and then a person may decide about what it has put in review.
    name = f"{settled.operation_id}_{settled.state}_{settled.lease}"
    event = {
        "id": name,
        "type": f"operation.{settled.state}",
        "timestamp": as_time(settled.updated_at),
        "data": settled.to_response(),
    }
    payload = json.dumps(event, ensure_ascii=False)  # escaped it could be larger than what the table takes
    return Operation(
        operation_id=operation_id(settled.tenant, FLOW, name),
        tenant=settled.tenant,
        flow=FLOW,
        function=FLOW,
        event_key=name,
        state=State.WAITING,
        fingerprint=fingerprint(payload),
        payload=payload,
        due_at=settled.updated_at,
        created_at=settled.updated_at,
        updated_at=settled.updated_at,
    )

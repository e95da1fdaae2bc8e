"""Callbacks: what a tenant is told when an operation settles whose caller was answered before.

A callback is itself an operation, of the flow `callback`. It is written in the transaction that settles the operation
which it tells of, so it is neither lost nor made twice; and whatever carries events, carries it.
"""

import json

from pydantic import BaseModel, ConfigDict, JsonValue

from crm_bridge.operations import Operation, State, as_time, fingerprint, operation_id

FLOW = "callback"


class Callback(BaseModel):
    """What is sent, but for its `id`, which is in a header.

    Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
    """

    model_config = ConfigDict(frozen=True, defer_build=True)

    id: str
    """The same for every try, and without a full stop, which separates it from what else is signed."""
    type: str
    timestamp: str
    data: dict[str, JsonValue]


def callback(settled: Operation) -> Operation:
    """The operation that tells of `settled`, due at once."""
    # One lease settles an operation once, and then a person may decide about what it has parked.
    name = f"{settled.operation_id}_{settled.state}_{settled.lease}"
    told = {
        "id": name,
        "type": f"operation.{settled.state}",
        "timestamp": as_time(settled.updated_at),
        "data": settled.shown(),
    }
    payload = json.dumps(told)
    return Operation(
        operation_id=operation_id(settled.tenant, FLOW, name),
        tenant=settled.tenant,
        flow=FLOW,
        natural_key=name,
        state=State.WAITING,
        fingerprint=fingerprint(payload),
        payload=payload,
        due_at=settled.updated_at,
        created_at=settled.updated_at,
        updated_at=settled.updated_at,
    )

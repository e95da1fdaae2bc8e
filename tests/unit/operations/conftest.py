"""Operations of the tenant `acme`, stored in memory and in moto, and what a test lets happen to the table's calls."""

from collections.abc import Callable, Iterable

import pytest

from crm_bridge.errors import Event
from crm_bridge.storage.links import Identity
from crm_bridge.storage.operation import Attempt, Operation, OperationSummary, State, fingerprint, operation_id
from crm_bridge.storage.operations import Claim, Operations
from tests.unit.conftest import Tables
from tests.variants import IS_LONG

NOW = 1_795_000_000
LATER = NOW + 900
SENT_BY = NOW + 60
CUSTOMER, SITE = Identity("crm", "customer", "1"), Identity("illu", "site", "4711")


@pytest.fixture(params=["memory", "moto"] if IS_LONG else ["memory"])
def emulator(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def operation(key: str = "1", state: State = State.WAITING, **changes: object) -> Operation:
    return Operation(
        operation_id=operation_id("acme", "create_site", key),
        tenant="acme",
        flow="create_site",
        function="create_site",
        event_key=key,
        state=state,
        fingerprint=fingerprint("{}"),
        payload="{}",
        lease="a1",
        due_at=NOW,
        created_at=NOW - 100,
        updated_at=NOW - 50,
    ).model_copy(update=changes)


def store(tables: Tables, stored: Operation) -> Operation:
    assert tables.operations.create(stored, over=State).won
    return stored


def there(tables: Tables, key: str = "1") -> Operation:
    found = tables.operations.get(operation_id("acme", "create_site", key))
    assert found is not None
    return found


type Call = Callable[[str, dict[str, object]], object]


def intercept(operations: Operations, around: Callable[[Call, str, dict[str, object]], object]) -> None:
    """Every call to the table goes through `around`, which gets the real call, the name and the arguments."""
    client = operations._client
    real: Call = client._make_api_call  # type: ignore[attr-defined]
    client._make_api_call = lambda name, arguments: around(real, name, arguments)  # type: ignore[attr-defined]


def lose_the_first_answer(operations: Operations) -> None:
    """The first call reaches the table, and the AWS client repeats it, because it got no answer."""
    lost: list[str] = []

    def around(real: Call, name: str, arguments: dict[str, object]) -> object:
        if not lost:
            lost.append(name)
            real(name, arguments)
        return real(name, arguments)

    intercept(operations, around)


def cancel(operations: Operations, *reasons: str) -> None:
    """Every transaction is cancelled for these reasons, one for each of its writes."""

    def around(_real: Call, name: str, _arguments: dict[str, object]) -> object:
        details = {
            "Error": {"Code": "TransactionCanceledException"},
            "CancellationReasons": [{"Code": reason} for reason in reasons],
        }
        raise operations._client.exceptions.TransactionCanceledException(details, name)  # type: ignore[arg-type]

    intercept(operations, around)


def fail(operations: Operations, error: Exception) -> None:
    def around(_real: Call, _name: str, _arguments: dict[str, object]) -> object:
        raise error

    intercept(operations, around)


ATTEMPT = Attempt(at=NOW, event=Event.NOT_DONE, reason="busy", status=503)
ATTEMPT_SHOWN = {"at": "2026-11-18T11:06:40+00:00", "event": "not done", "reason": "busy", "vendor_status": 503}
SUMMARY_SHOWN = {
    "operation_id": operation_id("acme", "create_site", "1"),
    "flow": "create_site",
    "event_key": "1",
    "state": "waiting",
    "last_attempt": ATTEMPT_SHOWN,
    "due_at": "2026-11-18T11:06:40+00:00",
    "created_at": "2026-11-18T11:05:00+00:00",
    "updated_at": "2026-11-18T11:05:50+00:00",
}


def claim(
    tables: Tables,
    *,
    key: str = "1",
    now: int = NOW,
    lease: str = "a2",
    states: Iterable[State] = (State.WAITING, State.UNCONFIRMED),
    lent_until: int | None = None,
) -> Claim | None:
    return tables.operations.claim(
        operation_id("acme", "create_site", key),
        lease=lease,
        now=now,
        until=now + 39,
        states=states,
        tenant="acme",
        lent_until=lent_until,
    )


def due(tables: Tables, now: int = NOW, shard: str = "") -> list[list[int]]:
    shard = shard or operation().shard
    return [[one.due_at for one in page] for page in tables.operations.due(shard, now)]


type After = tuple[str, int] | None


def page(
    tables: Tables, state: State = State.WAITING, *, flow: str | None = None, limit: int = 100, after: After = None
) -> tuple[list[OperationSummary], After]:
    return tables.operations.listed("acme", state, flow=flow, limit=limit, after=after)


def pages(tables: Tables, state: State, *, flow: str | None = None, limit: int = 100) -> list[list[str]]:
    """The event keys on all pages."""
    found, after = page(tables, state, flow=flow, limit=limit)
    keys = [[one.event_key for one in found]]
    while after:
        found, after = page(tables, state, flow=flow, limit=limit, after=after)
        assert len(found) <= limit
        keys.append([one.event_key for one in found])
    return keys


def listed(tables: Tables, state: State, *, flow: str | None = None, limit: int = 100) -> list[str]:
    return [key for keys in pages(tables, state, flow=flow, limit=limit) for key in keys]

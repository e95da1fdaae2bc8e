"""An operation in the place of another one, and the writes for the transactions of others."""

import pytest

from crm_bridge.errors import LinkTakenError, OvertakenError, StorageError
from crm_bridge.storage.operation import Operation, State
from crm_bridge.storage.operations import Claim
from tests.unit.conftest import Tables
from tests.unit.operations.conftest import LATER, NOW, cancel, lose_the_first_answer, operation, store, there

ENDED = operation(state=State.SUCCEEDED, due_at=None, held=frozenset({"op_change"}))
QUEUED = operation(held=frozenset({"op_change"}), lease="b1", due_at=LATER)


def changed(**changes: object) -> Operation:
    return ENDED.model_copy(update=changes)


def test_stored_in_the_place_of_what_is_held(tables: Tables) -> None:
    store(tables, ENDED)
    assert tables.operations.queue(QUEUED, ENDED) == Claim(True, QUEUED)
    assert there(tables) == QUEUED


@pytest.mark.parametrize(
    "now_there",
    [
        changed(state=State.REJECTED),
        changed(lease="a2"),
        changed(lease=None),
        changed(held=frozenset()),
        changed(held=frozenset({"op_other"})),
        changed(held=frozenset({"op_change", "op_other"})),
    ],
    ids=["state", "lease", "no lease", "not held", "held by another", "held by two"],
)
def test_not_stored_when_that_was_changed_since(tables: Tables, now_there: Operation) -> None:
    store(tables, now_there)
    assert tables.operations.queue(QUEUED, ENDED) == Claim(False, there(tables))
    assert there(tables).lease == now_there.lease


@pytest.mark.parametrize(
    ("before", "now_there"),
    [
        (changed(lease=None), changed(lease="a1")),
        (changed(held=frozenset()), changed(held=frozenset({"op_change"}))),
    ],
)
def test_not_stored_when_what_was_not_set_is_set_since(tables: Tables, before: Operation, now_there: Operation) -> None:
    store(tables, now_there)
    assert not tables.operations.queue(QUEUED, before).won
    assert there(tables) == now_there


def test_not_stored_when_that_is_gone(tables: Tables) -> None:
    assert tables.operations.queue(QUEUED, ENDED) == Claim(False, ENDED)


def test_has_won_when_only_the_response_to_its_own_write_was_lost(tables: Tables) -> None:
    store(tables, ENDED)
    lose_the_first_answer(tables.operations)
    assert tables.operations.queue(QUEUED, ENDED) == Claim(True, QUEUED)


def test_an_operation_and_its_kept_payload_are_erased(tables: Tables) -> None:
    one = store(tables, operation(state=State.SENDING, payload="{}"))
    done = one.model_copy(update={"state": State.SUCCEEDED, "payload": None, "due_at": None})
    tables.operations.save(done, [tables.operations.keep_payload(one, LATER)])
    tables.operations.erase(done)
    assert tables.operations.get(one.operation_id) is None
    assert tables.operations.kept_payload(one) is None


def test_nothing_is_erased_when_it_was_changed_since(tables: Tables) -> None:
    one = store(tables, changed(lease="a2"))
    with pytest.raises(OvertakenError) as raised:
        tables.operations.erase(ENDED)
    [item] = raised.value.there
    assert item is not None
    assert item["lease"] == {"S": "a2"}
    assert there(tables) == one


def test_what_is_gone_is_not_erased(tables: Tables) -> None:
    with pytest.raises(OvertakenError) as raised:
        tables.operations.erase(ENDED)
    assert list(raised.value.there) == [{}]


def test_the_storage_failed_when_an_erasure_was_throttled(tables: Tables) -> None:
    store(tables, ENDED)
    cancel(tables.operations, "ThrottlingError", "None")
    with pytest.raises(StorageError):
        tables.operations.erase(ENDED)


# ---------------------------------------------------------------- a part of an operation, with another's end


def along(tables: Tables, expression: str, condition: str, **values: object) -> None:
    """Settle another operation together with a change of a part of this one."""
    other = store(tables, operation("2", state=State.SENDING))
    write = tables.operations.update(
        operation().operation_id, expression, condition, {f":{name}": value for name, value in values.items()}
    )
    assert write["Update"]["TableName"] == tables.operations._table
    done = other.model_copy(update={"state": State.SUCCEEDED, "due_at": None})
    assert tables.operations.save(done, along=[write]) == done


def test_a_part_is_changed_in_anothers_transaction(tables: Tables) -> None:
    one = store(tables, operation(state=State.SUCCEEDED, due_at=None, result="{}"))
    along(tables, "SET #result = :result, reserved = :by", "#state = :state", result="[]", by="7#op", state="succeeded")
    assert there(tables) == one.model_copy(update={"result": "[]", "reserved": "7#op"})


def test_names_that_dynamodb_reserves_may_be_used(tables: Tables) -> None:
    store(tables, operation(due_at=NOW))
    along(
        tables, "SET #state = :state, #function = :function", "attribute_exists(lease)", state="waiting", function="f"
    )
    assert there(tables).function == "f"


def test_nothing_is_written_when_a_part_is_not_as_it_must_be(tables: Tables) -> None:
    one = store(tables, operation())
    with pytest.raises(OvertakenError) as raised:
        along(tables, "SET reserved = :by", "#state = :state", by="7#op", state="succeeded")
    [item] = raised.value.there
    assert item is not None
    assert item["state"] == {"S": "waiting"}
    assert there(tables) == one
    assert there(tables, "2").state is State.SENDING


def test_an_update_is_no_link(tables: Tables) -> None:
    """So it is never said to be taken."""
    with pytest.raises(OvertakenError) as raised:
        along(tables, "SET reserved = :by", "attribute_exists(lease)", by="7#op")
    assert not isinstance(raised.value, LinkTakenError)
    assert list(raised.value.there) == [{}]


def test_only_the_parts_that_are_not_as_they_must_be_are_shown(tables: Tables) -> None:
    one, other = store(tables, operation()), store(tables, operation("2", state=State.SENDING))
    writes = [
        tables.operations.update(operation(key).operation_id, "SET reserved = :by", condition, {":by": "7#op"})
        for key, condition in (("3", "attribute_not_exists(lease)"), ("1", "attribute_exists(held)"))
    ]
    with pytest.raises(OvertakenError) as raised:
        tables.operations.save(other.model_copy(update={"state": State.SUCCEEDED, "due_at": None}), along=writes)
    as_it_must_be, changed = raised.value.there
    assert as_it_must_be is None
    assert changed
    assert changed["lease"] == {"S": one.lease}

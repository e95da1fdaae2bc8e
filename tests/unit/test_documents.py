"""Documents: read, decide, write if nobody else has; and what counts when an answer was lost."""

import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from crm_bridge import aws
from crm_bridge.errors import StorageError
from crm_bridge.storage import dynamodb
from crm_bridge.storage.documents import Change, Document, Documents

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef, TransactWriteItemTypeDef

NEW = Document()
"""Nothing is there yet."""


@pytest.fixture
def documents(stores: Mapping[str, str]) -> Documents:
    return Documents(aws.client("dynamodb"), stores["People"])


@pytest.fixture
def one_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every write is the same write once more, as when the AWS client repeats it."""
    monkeypatch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=7))


def item(documents: Documents, key: str) -> "Mapping[str, AttributeValueTypeDef]":
    answer = documents._client.get_item(TableName=documents._table, Key={"document": {"S": key}}, ConsistentRead=True)
    return answer["Item"]


def new_item(documents: Documents, key: str) -> "TransactWriteItemTypeDef":
    """Something else that is written along, if it is not there yet."""
    return {
        "Put": {
            "TableName": documents._table,
            "Item": {"document": {"S": key}, "version": {"N": "1"}, "content": {"M": {}}},
            "ConditionExpression": "attribute_not_exists(document)",
        }
    }


def cancelled(*codes: str) -> ClientError:
    response = {"Error": {"Code": "TransactionCanceledException"}, "CancellationReasons": [{"Code": c} for c in codes]}
    return ClientError(response, "TransactWriteItems")  # type: ignore[arg-type]


# ---------------------------------------------------------------- read and write


def test_document_is_empty_when_nobody_has_written_it(documents: Documents) -> None:
    assert documents.get("a") == Document(version=0, content={})


def test_what_was_written_is_read(documents: Documents) -> None:
    content = {
        "text": "Büro 🏪",
        "empty": "",
        "yes": True,
        "no": False,
        "none": None,
        "number": 1_795_000_000_000_001,
        "list": [1, "two", {"three": [3]}],
        "nested": {"deeper": {"deepest": 0}},
    }
    assert documents.write({"a": Change(NEW, content)})
    assert documents.get("a") == Document(1, content)


def test_version_counts_the_writes(documents: Documents) -> None:
    for number in range(4):
        read = documents.get("a")
        assert read.version == number
        assert documents.write({"a": Change(read, {"number": number})})
    assert documents.get("a") == Document(4, {"number": 3})


def test_a_write_replaces_the_whole_content(documents: Documents) -> None:
    documents.write({"a": Change(NEW, {"one": 1})})
    documents.write({"a": Change(documents.get("a"), {"two": 2})})
    assert documents.get("a").content == {"two": 2}


@pytest.mark.parametrize("key", ["a#b", "tenant#Egito#" + "0" * 32, "ä 😀", " ", "a" * 1000])
def test_every_key_is_a_document_of_its_own(documents: Documents, key: str) -> None:
    documents.write({"a": Change(NEW, {"is": "a"}), key: Change(NEW, {"is": "other"})})
    assert (documents.get("a").content, documents.get(key).content) == ({"is": "a"}, {"is": "other"})


def test_content_is_in_no_repr(documents: Documents) -> None:
    change = Change(NEW, {"access_token": "hush"})
    documents.write({"a": change})
    assert "hush" not in repr(change) + repr(documents.get("a"))


@pytest.mark.parametrize(("expires_at", "stored"), [(1_795_000_000, {"N": "1795000000"}), (None, None)])
def test_end_is_stored_when_there_is_one(
    documents: Documents, expires_at: int | None, stored: dict[str, str] | None
) -> None:
    documents.write({"a": Change(NEW, {}, expires_at)})
    assert item(documents, "a").get("expires_at") == stored


def test_end_is_gone_when_the_next_version_has_none(documents: Documents) -> None:
    documents.write({"a": Change(NEW, {}, 1_795_000_000)})
    documents.write({"a": Change(documents.get("a"), {})})
    assert "expires_at" not in item(documents, "a")


# ---------------------------------------------------------------- somebody else was quicker


def test_nothing_is_written_when_somebody_else_has_written_meanwhile(documents: Documents) -> None:
    documents.write({"a": Change(NEW, {"by": "ann"})})
    read = documents.get("a")
    assert documents.write({"a": Change(read, {"by": "bob"})})
    assert documents.write({"a": Change(read, {"by": "eve"})}) is False
    assert documents.get("a") == Document(2, {"by": "bob"})


def test_nothing_is_written_when_somebody_else_was_the_first(documents: Documents) -> None:
    assert documents.write({"a": Change(NEW, {"by": "ann"})})
    assert documents.write({"a": Change(NEW, {"by": "bob"})}) is False
    assert documents.get("a") == Document(1, {"by": "ann"})


def test_a_version_that_never_was_is_not_followed(documents: Documents) -> None:
    documents.write({"a": Change(NEW, {})})
    assert documents.write({"a": Change(Document(2), {"by": "eve"})}) is False
    assert documents.get("a").version == 1


def test_a_deleted_document_is_not_there(documents: Documents) -> None:
    documents.write({"a": Change(NEW, {"by": "ada"})})
    assert documents.write({"a": Change(documents.get("a"), None)})
    assert documents.get("a") == NEW


def test_what_was_deleted_does_not_come_back_when_somebody_had_read_it(documents: Documents) -> None:
    documents.write({"a": Change(NEW, {"by": "ada"})})
    read = documents.get("a")
    documents.write({"a": Change(read, None)})
    assert documents.write({"a": Change(read, {"by": "eve"})}) is False
    assert documents.get("a") == NEW


def test_nothing_is_deleted_when_somebody_has_written_meanwhile(documents: Documents) -> None:
    documents.write({"a": Change(NEW, {"by": "ada"})})
    read = documents.get("a")
    documents.write({"a": Change(read, {"by": "eve"})})
    assert documents.write({"a": Change(read, None)}) is False
    assert documents.get("a").content == {"by": "eve"}


def test_several_are_written_at_once(documents: Documents) -> None:
    documents.write({"b": Change(NEW, {})})
    assert documents.write({"a": Change(NEW, {"is": "a"}), "b": Change(documents.get("b"), {"is": "b"})})
    assert [documents.get(key) for key in "ab"] == [Document(1, {"is": "a"}), Document(2, {"is": "b"})]


@pytest.mark.parametrize("late", ["a", "b", "c"])
def test_none_of_several_is_written_when_one_was_written_meanwhile(documents: Documents, late: str) -> None:
    documents.write({late: Change(NEW, {"by": "ann"})})
    assert documents.write({key: Change(NEW, {"by": "bob"}) for key in "abc"}) is False
    assert {key: documents.get(key).content.get("by") for key in "abc"} == dict.fromkeys("abc") | {late: "ann"}


def test_others_are_written_along(documents: Documents) -> None:
    assert documents.write({"a": Change(NEW, {})}, [new_item(documents, "other")])
    assert [documents.get(key).version for key in ("a", "other")] == [1, 1]


def test_nothing_is_written_when_what_goes_along_cannot_be(documents: Documents) -> None:
    documents.write({"other": Change(NEW, {"by": "ann"})})
    assert documents.write({"a": Change(NEW, {})}, [new_item(documents, "other")]) is False
    assert documents.get("a") == NEW
    assert documents.get("other").content == {"by": "ann"}


def test_others_are_not_written_when_a_document_was_written_meanwhile(documents: Documents) -> None:
    documents.write({"a": Change(NEW, {})})
    assert documents.write({"a": Change(NEW, {})}, [new_item(documents, "other")]) is False
    assert documents.get("other") == NEW


# ---------------------------------------------------------------- lost answers


@pytest.mark.usefixtures("one_writer")
def test_a_write_counts_once_when_its_answer_was_lost(documents: Documents) -> None:
    change = {"a": Change(NEW, {"by": "ann"})}
    assert [documents.write(change) for _ in range(3)] == [True, True, True]
    assert documents.get("a") == Document(1, {"by": "ann"})


@pytest.mark.usefixtures("one_writer")
def test_a_write_of_several_counts_once_when_its_answer_was_lost(documents: Documents) -> None:
    changes = {key: Change(NEW, {"is": key}) for key in "ab"}
    others = [new_item(documents, "other")]
    assert [documents.write(changes, others) for _ in range(2)] == [True, True]
    assert [documents.get(key).version for key in ("a", "b", "other")] == [1, 1, 1]


def test_a_write_does_not_count_when_its_equal_is_somebody_elses(documents: Documents) -> None:
    change = {"a": Change(NEW, {"by": "ann"})}
    assert [documents.write(change) for _ in range(2)] == [True, False]


def test_a_write_that_the_aws_client_repeats_counts(documents: Documents, monkeypatch: pytest.MonkeyPatch) -> None:
    really_write = documents._client.transact_write_items

    def write_twice(**request: object) -> object:
        really_write(**request)  # type: ignore[arg-type]
        return really_write(**request)  # type: ignore[arg-type]

    monkeypatch.setattr(documents._client, "transact_write_items", write_twice)
    assert documents.write({"a": Change(NEW, {"by": "ann"})})
    assert documents.get("a") == Document(1, {"by": "ann"})


# ---------------------------------------------------------------- failures


@pytest.mark.parametrize("mine", [True, False])
def test_a_condition_has_failed_when_the_error_is_of_another_class_of_the_same_name(
    documents: Documents, monkeypatch: pytest.MonkeyPatch, mine: bool
) -> None:
    """A client makes its error classes at first use. When two threads did so at once, one caught what never came."""

    def write(**request: Any) -> None:
        there = request["TransactItems"][0]["Put"]["Item"] if mine else {"writer": {"S": "eve"}}
        response: Any = {
            "Error": {"Code": "TransactionCanceledException"},
            "CancellationReasons": [{"Code": "ConditionalCheckFailed", "Item": there}],
        }
        raise type("TransactionCanceledException", (ClientError,), {})(response, "TransactWriteItems")

    monkeypatch.setattr(documents._client, "transact_write_items", write)
    assert documents.write({"a": Change(NEW, {})}) is mine


@pytest.mark.parametrize("reason", ["TransactionConflict", "ThrottlingError"])
def test_a_write_is_repeated_when_it_met_another(
    documents: Documents, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    really_write, failures = documents._client.transact_write_items, [cancelled("None", reason)] * 2

    def write(**request: object) -> object:
        if failures:
            raise failures.pop()
        return really_write(**request)  # type: ignore[arg-type]

    monkeypatch.setattr(documents._client, "transact_write_items", write)
    monkeypatch.setattr(dynamodb, "sleep", lambda _seconds: None)
    assert documents.write({"a": Change(NEW, {})})
    assert (failures, documents.get("a").version) == ([], 1)


def test_is_a_storage_error_when_the_table_does_not_answer(documents: Documents) -> None:
    gone = Documents(documents._client, "gone")
    with pytest.raises(StorageError):
        gone.get("a")
    with pytest.raises(StorageError):
        gone.write({"a": Change(NEW, {})})


@pytest.mark.parametrize(
    "failure",
    [
        ClientError({"Error": {"Code": "InternalServerError"}}, "TransactWriteItems"),
        ReadTimeoutError(endpoint_url="https://dynamodb"),
        cancelled("ValidationError"),
        cancelled("ItemCollectionSizeLimitExceeded", "None"),
        cancelled(*["TransactionConflict"] * 2),
    ],
    ids=["internal", "timeout", "not valid", "too large", "conflicts without end"],
)
def test_is_a_storage_error_when_aws_fails(
    documents: Documents, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def fail(**_request: object) -> None:
        raise failure

    monkeypatch.setattr(dynamodb, "sleep", lambda _seconds: None)
    for call in ("transact_write_items", "get_item"):
        monkeypatch.setattr(documents._client, call, fail)
    with pytest.raises(StorageError):
        documents.write({"a": Change(NEW, {})})
    with pytest.raises(StorageError):
        documents.get("a")


def test_a_value_is_in_no_message_when_a_write_fails(documents: Documents) -> None:
    with pytest.raises(StorageError) as caught:
        documents.write({"a-secret-key": Change(NEW, {"access_token": "hush" * 120_000})})  # more than 400 KB
    assert [text for text in ("hush", "a-secret-key") if text in f"{caught.value!r} {caught.value.detail}"] == []
    assert documents.get("a-secret-key") == NEW


# ---------------------------------------------------------------- read at once, and changed unread


def test_items_of_all_kinds_are_read_at_once(documents: Documents) -> None:
    documents.write({"a": Change(NEW, {"is": "a"})})
    readings = [documents.reading("a"), documents.reading("b")]
    calls: list[str] = []
    client: Any = documents._client
    real = client._make_api_call

    def counted(name: str, arguments: dict[str, object]) -> object:
        calls.append(name)
        return real(name, arguments)

    client._make_api_call = counted
    documents.read_at_once(*readings)
    assert [reading.value for reading in readings] == [Document(1, {"is": "a"}), NEW]
    assert calls == ["TransactGetItems"]


def test_a_member_is_taken_out_whoever_has_written_the_others(documents: Documents) -> None:
    documents.write({"a": Change(NEW, {"one": {"is": 1}, "two": {"is": 2}})})
    read = documents.get("a")
    for member in ("one", "nobody"):
        documents._client.transact_write_items(TransactItems=[documents.removing("a", member, "op_1")])
    assert documents.get("a") == Document(3, {"two": {"is": 2}})
    assert not documents.write({"a": Change(read, {"one": {"is": 1}})})  # it must not come back


def test_no_document_comes_into_being_when_a_member_is_taken_out(documents: Documents) -> None:
    with pytest.raises(ClientError, match="ConditionalCheckFailed"):
        documents._client.transact_write_items(TransactItems=[documents.removing("a", "one", "op_1")])
    assert documents.get("a") == NEW

"""The queues on which operations wait for the functions that send them.

They are FIFO queues. Each tenant has a few lanes on a queue, its message groups, and a queue gives out one message of a
lane at a time. A tenant has one lane fewer than the function has workers, so if its vendor hangs, a worker is left for
the others. It has at least two, because a vendor's limit may be shared out to two workers, as Rev.io's is. The lanes do
not decide in which order changes of one thing are made.

Source: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/FIFO-queues-understanding-logic.html
"""

import json
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError

from crm_bridge.errors import QueueError

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import SendMessageBatchRequestEntryTypeDef

BATCH = 10
"""The most messages that SQS takes in one call."""
LEAST_LANES = 2


class Message(NamedTuple):
    """Asks a function to send an operation that is lent to this message until then (epoch seconds)."""

    operation_id: str
    tenant: str
    lent_until: int

    def body(self) -> str:
        return json.dumps(self._asdict())

    def lane(self, lanes: int) -> str:
        return f"{self.tenant}#{zlib.crc32(self.operation_id.encode()) % lanes}"

    @property
    def id(self) -> str:
        """Return its id. SQS drops a message of the same id that comes within five minutes."""
        return f"{self.operation_id}#{self.lent_until}"


class Queues:
    """The functions' queues, as the environment names them. Threads may share it.

    Of a function `x` that is `X_QUEUE_URL`, and `X_WORKERS`, the number of messages that it takes at once.
    """

    def __init__(self, make_client: "Callable[[], SQSClient]", environment: Mapping[str, str]) -> None:
        self._make_client = make_client
        self._urls = _of_functions(environment, "_QUEUE_URL")
        self.workers = {function: int(number) for function, number in _of_functions(environment, "_WORKERS").items()}

    @cached_property
    def client(self) -> "SQSClient":
        return self._make_client()

    def __contains__(self, function: str) -> bool:
        return function in self._urls and function in self.workers

    def send(self, function: str, messages: Sequence[Message]) -> Collection[str]:
        """Put at most BATCH messages on a function's queue, and return the operations whose message it has taken.

        Raises QueueError if nobody knows.
        """
        lanes = max(LEAST_LANES, self.workers[function] - 1)
        entries: list[SendMessageBatchRequestEntryTypeDef] = [
            {
                "Id": str(number),
                "MessageBody": message.body(),
                "MessageGroupId": message.lane(lanes),
                "MessageDeduplicationId": message.id,
            }
            for number, message in enumerate(messages)
        ]
        try:
            response = self.client.send_message_batch(QueueUrl=self._urls[function], Entries=entries)
        except (ClientError, BotoCoreError) as error:
            raise QueueError(type(error).__name__) from error
        return {messages[int(one["Id"])].operation_id for one in response.get("Successful", ())}


def _of_functions(environment: Mapping[str, str], suffix: str) -> dict[str, str]:
    found = ((name.removesuffix(suffix), value) for name, value in environment.items() if name.endswith(suffix))
    return {name.lower(): value for name, value in found}

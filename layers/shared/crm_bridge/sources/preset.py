"""The base class of presets: what is known of one kind of sender."""

from collections.abc import Iterable, Mapping
from typing import ClassVar, Literal

from pydantic import JsonValue

from crm_bridge.errors import InvalidError, TooLargeError
from crm_bridge.sources import bodies
from crm_bridge.sources.incoming import MAX_BODY, Incoming
from crm_bridge.sources.proof import Proof

type Answer = Literal["async 200", "async 202", "soap ack"]


class Preset:
    """One kind of sender. `source_page` is the vendor's page; what a vendor does not document is a hash or a choice."""

    name: ClassVar[str]
    title: ClassVar[str]
    source_page: ClassVar[str]
    proofs: ClassVar[Mapping[str, Proof]]
    """By name, the ways to prove who sent a request; the first is the default."""
    may_sign: ClassVar[bool] = False
    """Whether a tenant may describe a signature of its own."""
    formats: ClassVar[tuple[bodies.Format, ...]] = ("json",)
    """The formats of its bodies; the first is assumed if there is no Content-Type."""
    is_any_text_json: ClassVar[bool] = False
    """Whether `text/plain` is read as JSON: the sender's Content-Type is not documented, or is what an admin types."""
    headers: ClassVar[tuple[str, ...]] = ()
    """Headers without which an event is not complete. With any, an event is `{"headers": …, "body": …}`."""
    key: ClassVar[tuple[str, ...]] = ()
    """The default event key: JMESPath expressions on the payload, and `header:NAME`. Without any it is a hash."""
    volatile: ClassVar[tuple[str, ...]] = ()
    """Members of the payload that differ when the sender repeats an event, such as `meta.attempt`; not hashed."""
    answers: ClassVar[tuple[Answer, ...]] = ("async 200", "async 202")
    """Those that it understands; the first is the default."""
    sample_headers: ClassVar[Mapping[str, str]] = {"content-type": "application/json"}
    sample: ClassVar[bytes]
    """A made-up request of the documented shape, without its proof."""

    @classmethod
    def read(cls, incoming: Incoming) -> JsonValue:
        """Return the parsed body. Raises TooLargeError, UnsupportedMediaTypeError, NotJsonError, NotXmlError,
        InvalidError.
        """
        if len(incoming.body) > MAX_BODY:
            raise TooLargeError(f"Send at most {MAX_BODY} bytes.")
        return cls.parse(incoming)

    @classmethod
    def parse(cls, incoming: Incoming) -> JsonValue:
        """Return the parsed body, which is not too large."""
        return bodies.read(incoming, cls.formats, is_any_text_json=cls.is_any_text_json)

    @classmethod
    def split(cls, body: JsonValue, incoming: Incoming) -> Iterable[JsonValue]:
        """Return the events in a body, one by one: there may be more than are taken. Raises InvalidError."""
        if not isinstance(body, dict | list):
            raise InvalidError("Send an object, or a list of them.")
        events: list[JsonValue] = body if isinstance(body, list) else [body]
        if not cls.headers:
            return events
        headers: dict[str, JsonValue] = {name: incoming.headers.get(name) for name in cls.headers}
        return ({"headers": headers, "body": event} for event in events)

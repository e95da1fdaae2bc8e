"""Faults of a network call, as data. `harness.World` does it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

VENDORS = frozenset({"illu", "revio", "izzitup", "egito"})
DYNAMODB = frozenset({"DynamoDB"})
SECRETS = frozenset({"SecretsManager"})
LAMBDA = frozenset({"Lambda"})
"""Where a durable function, one of the peers, stores its checkpoints."""
AWS = DYNAMODB | SECRETS | LAMBDA | {"SQS"}

REFUSING, NAMELESS, UNTRUSTED = "http://127.0.0.1:9", "http://no-such-name.invalid", "https://{netloc}"
"""Where a detour leads: to a port that nobody listens on, a name that does not resolve, a server that speaks no TLS."""


class Act(Enum):
    DETOUR = auto()
    """The caller gets no connection."""
    ANSWER = auto()
    CUT = auto()
    """The connection ends without an answer."""
    TIMEOUT = auto()
    """No answer comes for as long as the caller waits."""
    KILL = auto()
    """SIGKILL to the process that called."""
    AGAIN = auto()
    """The same request, or the same message, is handled by another worker from begin to end; then the call goes on."""
    ASK = auto()
    """The same with the caller's request, while the call is one of a retry."""


class Span(Enum):
    """How much one fault hits."""

    ATTEMPT = auto()
    CALL = auto()
    """With all the attempts that the AWS client makes of it."""
    INVOCATION = auto()
    """That call, and all that the function asks of the same service until it ends."""
    HOURS = auto()
    """That call, and all to the same service for three hours."""


@dataclass(frozen=True)
class Call:
    """A network call of the bundle. `id` is the same for all attempts of one; `pid` is that of a child process.

    `needs` are the IAM actions that AWS asks for, each with the name of the table, index, queue or secret.
    """

    service: str
    what: str
    id: str = field(compare=False)
    pid: int | None = field(default=None, compare=False)
    needs: frozenset[tuple[str, str]] = field(default=frozenset(), compare=False)

    @property
    def name(self) -> str:
        return f"{self.service} {self.what}"

    @property
    def only_reads(self) -> bool:
        return self.what.startswith(("GET ", "GetItem", "Query", "BatchGetItem", "TransactGetItems", "GetSecretValue"))


@dataclass(frozen=True)
class Fault:
    """`done` says whether what was asked for is done first. `sure`: nobody can take it for done."""

    name: str
    act: Act
    on: frozenset[str] = VENDORS | AWS
    done: bool = False
    sure: bool = False
    span: Span = Span.CALL
    detour: str = ""
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict, hash=False)
    body: str = ""

    def fits(self, call: Call) -> bool:
        # Of what only reads nobody can tell whether it was done.
        # Before a call that only reads, an outage of hours is the same as before the next that does not.
        return call.service in self.on and not (call.only_reads and (self.done or self.span is Span.HOURS))


_THROTTLED = (
    '{"__type": "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException", "message": "Too many"}'
)
_FAILED = '{"__type": "InternalServerError", "message": "Internal server error"}'

FAULTS = (
    Fault("connection refused", Act.DETOUR, sure=True, detour=REFUSING),
    Fault("down for hours", Act.DETOUR, on=VENDORS, sure=True, detour=REFUSING, span=Span.HOURS),
    Fault("name not found", Act.DETOUR, sure=True, detour=NAMELESS),
    Fault("TLS fails", Act.DETOUR, sure=True, detour=UNTRUSTED),
    Fault("timeout, not done", Act.TIMEOUT),
    Fault("timeout, done", Act.TIMEOUT, done=True),
    Fault("closed, not done", Act.CUT),
    Fault("closed, done", Act.CUT, done=True),
    Fault("closed once, done", Act.CUT, on=AWS, done=True, span=Span.ATTEMPT),
    Fault("500, not done", Act.ANSWER, status=500, body=_FAILED),
    Fault("500, done", Act.ANSWER, done=True, status=500, body=_FAILED),
    Fault("500 to the end", Act.ANSWER, on=DYNAMODB | SECRETS | LAMBDA, span=Span.INVOCATION, status=500, body=_FAILED),
    Fault("throttled", Act.ANSWER, on=DYNAMODB, status=400, body=_THROTTLED),
    Fault("429", Act.ANSWER, on=VENDORS, sure=True, status=429, headers={"Retry-After": "40"}),
    Fault("503", Act.ANSWER, on=VENDORS, sure=True, status=503, headers={"Retry-After": "40"}),
    Fault("429, done", Act.ANSWER, on=VENDORS, done=True, status=429, headers={"Retry-After": "40"}),
    Fault("503, done", Act.ANSWER, on=VENDORS, done=True, status=503, headers={"Retry-After": "40"}),
    Fault("HTML 502", Act.ANSWER, on=VENDORS, status=502, headers={"Content-Type": "text/html"}, body="<h1>502</h1>"),
    Fault("killed before", Act.KILL),
    Fault("killed after", Act.KILL, done=True),
    Fault("handled twice at once", Act.AGAIN, sure=True),
    Fault("sent again meanwhile", Act.ASK, sure=True),
)

TAKEN_AT_ITS_WORD = frozenset({"429, done", "503, done"})
"""Faults that a vendor without a look-up must not have; see docs/reliability.md."""


HOURS = 3 * 3600
"""Seconds of an outage."""


@dataclass
class Plan:
    """A fault that is to come: at the `nth` call of this name, or at the first that it fits."""

    fault: Fault
    name: str | None
    nth: int
    hit: Call | None = None
    hit_at: float = 0
    ids: set[str] = field(default_factory=set)

    def hits(self, call: Call, now: float) -> bool:
        if self.hit:
            match self.fault.span:
                case Span.ATTEMPT:
                    return False
                case Span.CALL:
                    return call.id == self.hit.id
                case Span.INVOCATION:
                    return call.service == self.hit.service
                case Span.HOURS:
                    return call.service == self.hit.service and now < self.hit_at + HOURS
        if not self.fault.fits(call) or self.name not in (None, call.name) or call.id in self.ids:
            return False
        if self.fault.act is Act.KILL and call.pid is None:
            return False
        self.ids.add(call.id)
        self.hit, self.hit_at = (call, now) if len(self.ids) == self.nth else (None, 0)
        return self.hit is not None

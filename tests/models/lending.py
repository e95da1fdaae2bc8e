"""An operation on its way to its function: handed over by whoever accepts it, lent by the dispatcher, or made due by a
person who does not wait for its time.

Each write, each message and each claim is a step; a function may be killed before any, and a message may be lost on its
way to the queue, be given out again, or come late. When a lending is over is left to chance, and so is how long a
message lives. A worker that is alive settles before its lease ends.
`RULES` are what the protocol rests on; `without` leaves some of them out.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.models.search import Found, search, unused

RULES = {
    "due by itself": "what is handed over or lent becomes due again, whether there is a message or not",
    "only its own": "a message takes up only what is due, or lent to this very message",
    "claim ends it": "whoever takes it up ends its lending, so that the same message is good for one claim",
    "take back its own": "what was not sent is taken back only if it is still lent to the message that failed",
    "only what waits": "a person makes only due what waits, as it was read: not what is lent, being sent or done",
}
MOST_MESSAGES = 2
"""On the queue at once when one more is lent; they expire, so this is no rule."""
WAITING, SENDING, DONE = "waiting", "sending", "done"


class Op(NamedTuple):
    state: str = ""
    due: bool = False
    lent: int = 0


class State(NamedTuple):
    """`caller`, `dispatcher` and `person` are what comes next for each; `lending` and `handing` are the messages of the
    last two."""

    op: Op = Op()
    caller: str = "accept"
    dispatcher: str = "lend"
    lending: int = 0
    person: str = ""
    handing: int = 0
    messages: frozenset[int] = frozenset()
    working: frozenset[int] = frozenset()
    """The messages of workers that are sending."""
    calls: int = 0
    early: bool = False
    kills: int = 0
    losses: int = 0
    refusals: int = 0
    retries: int = 0


def lending(
    *, kills: int, losses: int, refusals: int = 1, retries: int = 1, without: frozenset[str] = frozenset()
) -> Found:
    """`refusals` is how often the vendor says that it has surely not been done, so that it waits for its next try;
    `retries` is how often a person does not wait for that."""

    def steps(state: State) -> Iterator[tuple[str, State]]:
        op, late = state.op, state._replace
        if op.state == WAITING and not op.due and ("due by itself" not in without or not op.lent):
            yield "time passes", late(op=op._replace(due=True))
        if op.state == SENDING and not state.working and not op.due:
            yield "the lease ends", late(op=op._replace(due=True))
        yield from _caller(state)
        yield from _dispatcher(state)
        yield from _person(state)
        for message in state.messages - state.working:
            yield f"message {message} expires", late(messages=state.messages - {message})
            yield from _claim(state, message)
        for message in state.working:
            yield from _worker(state, message)

    def _caller(state: State) -> Iterator[tuple[str, State]]:
        if state.caller == "accept":
            yield "it is accepted", state._replace(op=Op(WAITING, due=False, lent=1), caller="send")
        elif state.caller == "send":
            sent = state._replace(messages=state.messages | {1}, caller="")
            yield "it is handed over", sent
            yield from _broken(state, sent, "handing it over", caller="")

    def _dispatcher(state: State) -> Iterator[tuple[str, State]]:
        op, mine = state.op, state.lending
        is_taken_up = op.due and op.state in (WAITING, SENDING)
        if state.dispatcher == "lend" and is_taken_up and len(state.messages) < MOST_MESSAGES:
            number = unused(state.messages, [op.lent, state.handing, 1])
            lent = state._replace(
                op=op._replace(due=False, lent=number),
                dispatcher="send",
                lending=number,
            )
            yield f"it is lent to message {number}", lent
        elif state.dispatcher == "send":
            sent = state._replace(messages=state.messages | {mine}, dispatcher="extend")
            yield f"message {mine} is sent", sent
            if state.losses < losses:
                yield f"message {mine} is not taken", state._replace(dispatcher="take back", losses=state.losses + 1)
            yield from _broken(state, sent, f"sending message {mine}", dispatcher="lend", lending=0)
        elif state.dispatcher in ("extend", "take back"):
            through = state._replace(dispatcher="lend", lending=0)
            is_mine = op.lent == mine or ("take back its own" in without and state.dispatcher == "take back")
            if is_mine and op.state != DONE:
                is_due = state.dispatcher == "take back"
                through = through._replace(op=op._replace(due=is_due, lent=0 if is_due else mine))
            yield f"{state.dispatcher} {mine}", through

    def _person(state: State) -> Iterator[tuple[str, State]]:
        """Whoever retries many at once only makes them due (`time passes`); whoever retries one hands it over too."""
        op, mine = state.op, state.handing
        if state.person == "" and state.retries < retries and op.state in (WAITING, SENDING) and not op.due:
            yield "a person looks at it", state._replace(person="retry", retries=state.retries + 1)
        elif state.person == "retry":
            number = unused(state.messages, [op.lent, state.lending, 1])
            is_free = (op.state == WAITING and not op.lent) or "only what waits" in without
            if is_free and len(state.messages) < MOST_MESSAGES:
                lent = op._replace(due=False, lent=number)
                yield (
                    f"a person makes it due for message {number}",
                    state._replace(op=lent, person="send", handing=number),
                )
            yield "a person leaves it", state._replace(person="")
        elif state.person == "send":
            through = state._replace(person="", handing=0)
            sent = through._replace(messages=state.messages | {mine})
            yield f"the person's message {mine} is sent", sent
            yield from _broken(state, sent, f"the person's message {mine}", person="", handing=0)

    def _broken(state: State, sent: State, what: str, **after: Any) -> Iterator[tuple[str, State]]:
        """It is killed before it has sent, or after it, or the response is lost."""
        if state.kills < kills:
            yield f"killed before {what}", state._replace(kills=state.kills + 1, **after)
            yield f"killed after {what}", sent._replace(kills=state.kills + 1, **after)

    def _claim(state: State, message: int) -> Iterator[tuple[str, State]]:
        op = state.op
        is_its_own = op.lent == message
        if op.state not in (WAITING, SENDING) or not (op.due or is_its_own or "only its own" in without):
            yield f"message {message} finds nothing to do", state._replace(messages=state.messages - {message})
            return
        taken = Op(SENDING, due=False, lent=op.lent if "claim ends it" in without else 0)
        early = state.early or not (op.due or is_its_own)
        yield f"message {message} takes it up", state._replace(op=taken, working=state.working | {message}, early=early)

    def _worker(state: State, message: int) -> Iterator[tuple[str, State]]:
        over = state._replace(working=state.working - {message}, calls=state.calls + 1)
        gone = over._replace(messages=state.messages - {message})
        yield f"{message}: it is done", gone._replace(op=Op(DONE))
        if state.refusals < refusals:
            waiting = gone._replace(op=Op(WAITING), refusals=state.refusals + 1)
            yield f"{message}: it is surely not done", waiting
        if state.kills < kills:
            yield f"{message}: killed before it is settled", over._replace(kills=state.kills + 1)

    def never(state: State) -> str | None:
        if len(state.working) > 1:
            return "two are sending it at once"
        if state.calls > 1 + state.kills + state.refusals:
            return "it was sent again for no reason"
        return "it was taken up before it was due" if state.early else None

    def at_the_end(state: State) -> str | None:
        return None if state.op.state == DONE else "it is lost"

    return search(State(), steps, never=never, at_the_end=at_the_end)

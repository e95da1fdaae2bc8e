"""The reactions of each sender to our responses, and a simulation: which events reach the bridge in the end.

The facts are the vendors' own, or marked as not documented. A schedule that a vendor does not give in numbers is one of
the documented length. What is not documented is played as if the sender never tried again.
"""

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from crm_bridge.inbound.api import Response
from crm_bridge.sources import PRESETS

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
type Bridge = Callable[[float, int], Response | None]
"""Answers a request at a time (in seconds) with an event (its number); None is no response in time."""


class Retries(NamedTuple):
    """How often a sender tries again, and after how many seconds each time."""

    delays: tuple[float, ...]
    words: str
    is_exact: bool = True
    """Whether the number and the time are documented."""


class Ban(NamedTuple):
    """After so many failed first attempts a sender sends nothing for a while; events of that time are lost."""

    failures: int
    seconds: float


def _doubling(first: float, most: float, total: float) -> tuple[float, ...]:
    """Return delays that double up to `most`, for `total` seconds."""
    delays: list[float] = []
    while sum(delays) + first <= total:
        delays.append(first)
        first = min(2 * first, most)
    return tuple(delays)


NEVER = Retries((), "never")
OWN_CHOICE = Retries((), "its own choice", is_exact=False)
UNKNOWN = Retries((), "not documented", is_exact=False)
OK = "2xx"
SILENT = "no answer"
KINDS = ("4xx", "429", "500", "502", "503", SILENT)
"""Kinds of responses that the bridge or its gateway gives, besides 2xx. `4xx` is any other from 300 to 499, but 409;
`502` is also 504."""


@dataclass(frozen=True)
class Sender:
    """The behaviour of one sender."""

    preset: str
    timeout: float | None
    """Seconds that it waits for a response; None is not documented."""
    retries: Mapping[str, Retries]
    """By the kind of response. 409 and 429 that are missing are as `4xx`; 500, 502 and 503 are as `5xx`."""
    note: str
    """Remarks, with advice."""
    ban: Ban | None = None
    obeys_retry_after: bool = False
    """Whether it waits as Retry-After says instead, which must be less than a minute."""

    def after(self, kind: str) -> Retries:
        """Return what it does after a response of this kind."""
        wider = "5xx" if kind.startswith("5") else "4xx"
        return self.retries.get(kind, self.retries.get(wider, UNKNOWN))


def _all(retries: Retries) -> Mapping[str, Retries]:
    return dict.fromkeys(("4xx", "5xx", SILENT), retries)


TEN_IN_A_DAY = Retries((DAY / 10,) * 10, "up to 10 times in 24 h")
THREE_DAYS = Retries(_doubling(MINUTE, 8 * HOUR, 3 * DAY), "for 3 days, first after 1 min, then up to 8 h apart")
EIGHT_IN_4_HOURS = Retries((HOUR / 2,) * 8, "8 times in 4 h")
PIPEDRIVE = Retries((3, 30, 150), "after 3, 30 and 150 s")
FRESHDESK = Retries((5 * MINUTE, 30 * MINUTE, HOUR), "after 5, 30 and 60 min")
OUTBOUND = Retries(_doubling(MINUTE, 2 * HOUR, DAY), "for 24 h, up to 2 h apart")
SVIX = Retries(
    (5, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 10 * HOUR), "after 5 s, 5 and 30 min, 2, 5, 10 and 10 h"
)
ADVISED = Retries(
    (5, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR), "for a day or more, as the standard advises"
)
STRIPE = Retries(_doubling(HOUR, 12 * HOUR, 3 * DAY), "for up to 3 days")
POWER_AUTOMATE = Retries((5 * MINUTE, 10 * MINUTE), "after 5 and about 10 min; on larger plans 8 times or more")
ONCE = Retries((MINUTE,), "once", is_exact=False)
THRICE = Retries((MINUTE,) * 3, "3 times", is_exact=False)
FIVE = Retries((MINUTE,) * 5, "5 times", is_exact=False)
WHILE_TOLD = Retries((MINUTE,), "if Retry-After is below 60 s; how often is not documented", is_exact=False)

SENDERS: tuple[Sender, ...] = (
    Sender(
        "hubspot-app",
        5,
        _all(TEN_IN_A_DAY),
        "Also a 4xx is repeated ten times, so an event that nobody wants is answered 200. One response is for all"
        " events of a list.",
    ),
    Sender(
        "hubspot-workflow",
        30,
        {"4xx": NEVER, "429": THREE_DAYS, "5xx": THREE_DAYS, SILENT: UNKNOWN},
        "A failed connection is repeated as a 5xx is. Retry-After of a 429 is read as milliseconds, so the bridge"
        " itself never answers 429 here.",
    ),
    Sender(
        "zendesk",
        12,
        {"4xx": NEVER, "409": THRICE, "429": WHILE_TOLD, "503": WHILE_TOLD, "5xx": NEVER, SILENT: FIVE},
        "Delivery is best effort. Zendesk lists the calls of the last 7 days: compare after an outage.",
        obeys_retry_after=True,
    ),
    Sender(
        "salesforce-flow",
        120,
        _all(NEVER),
        "A status of 300 or more is the fault path of the flow: let it try again from there.",
    ),
    Sender(
        "salesforce-outbound",
        60,
        _all(OUTBOUND),
        "The acknowledgement decides, not the status. A record that changes while it waits is sent once, with its"
        " latest values. That a 4xx is repeated is inferred.",
    ),
    Sender("zoho-workflow", None, _all(UNKNOWN), "Plan as if nothing were repeated. Compare with a report of Zoho."),
    Sender(
        "zoho-notification",
        None,
        _all(UNKNOWN),
        "Plan as if nothing were repeated. A channel ends by itself: renew it, and look when nothing comes.",
    ),
    Sender(
        "pipedrive-v2",
        10,
        _all(PIPEDRIVE),
        "After 10 failed first attempts Pipedrive sends nothing for 30 minutes, and those events are lost. After three"
        " days without a success the webhook is deleted. Compare with Pipedrive's lists after an outage.",
        ban=Ban(10, 30 * MINUTE),
    ),
    Sender("pipedrive-v1", 10, _all(PIPEDRIVE), "As v2.", ban=Ban(10, 30 * MINUTE)),
    Sender(
        "freshdesk",
        None,
        {"4xx": UNKNOWN, "5xx": FRESHDESK, SILENT: UNKNOWN},
        "The schedule is from a help page of a test portal. Calls above the API's rate limit wait for the next hour, at"
        " most for a day.",
    ),
    Sender(
        "dataverse",
        60,
        {"4xx": NEVER, "500": NEVER, "5xx": ONCE, SILENT: NEVER},
        "How long it waits is not documented. Failed calls are system jobs (`asyncoperations`, status 31): compare"
        " after an outage. A step that is synchronous would undo the user's save.",
    ),
    Sender(
        "power-automate",
        120,
        {"4xx": NEVER, "429": POWER_AUTOMATE, "5xx": POWER_AUTOMATE, SILENT: POWER_AUTOMATE},
        "408 is repeated as well. The author may set up to 90 retries: set them. A 202 would be polled.",
    ),
    Sender("upya", None, _all(UNKNOWN), "Plan as if nothing were repeated. Upya's API can be asked what has changed."),
    Sender(
        "shopify",
        5,
        _all(EIGHT_IN_4_HOURS),
        "After 8 failures in a row Shopify deletes a subscription that was made by its API.",
    ),
    Sender("github", 10, _all(NEVER), "Deliveries of about the last 3 days can be repeated by hand."),
    Sender(
        "stripe-like",
        None,
        _all(STRIPE),
        "This is Stripe's schedule, whose steps are not documented; others that sign like it have their own.",
    ),
    Sender(
        "standard-webhooks",
        15,
        _all(ADVISED),
        "The standard advises this, and to wait 15 to 30 s; senders have their own. 410 would disable the address:"
        " the bridge never answers it.",
    ),
    Sender("svix", 15, _all(SVIX), "If all fails for 5 days, the address is disabled."),
    Sender("cloudevents", None, _all(OWN_CHOICE), "The sender's own choice; it must obey the Retry-After of a 429."),
    Sender(
        "in-house", None, _all(OWN_CHOICE), "Your own choice: repeat after 408, 429, 5xx and no response, for a day."
    ),
)


# ---------------------------------------------------------------------- playing it


@dataclass
class Played:
    """The outcomes of the events, by their numbers."""

    delivered: set[int] = field(default_factory=set)
    lost: set[int] = field(default_factory=set)
    requests: int = 0
    bans: int = 0


def kind_of(response: Response | None) -> str:
    """Return the kind of a response. An acknowledgement `false` is as good as a 503."""
    if response is None:
        return SILENT
    if response.status < 300:
        return "503" if isinstance(response.body, str) and "<Ack>false</Ack>" in response.body else OK
    if response.status >= 500:
        return {502: "502", 503: "503", 504: "502"}.get(response.status, "500")
    return str(response.status) if response.status in (409, 429) else "4xx"


def play(sender: Sender, bridge: Bridge, times: Iterable[float]) -> Played:
    """Return what becomes of events that happen at these times, in seconds, one event in a request."""
    played, failures, banned_until = Played(), 0, -1.0
    queue = [(time, number, 0) for number, time in enumerate(times)]
    heapq.heapify(queue)
    while queue:
        time, number, attempt = heapq.heappop(queue)
        if attempt == 0 and time < banned_until:
            played.lost.add(number)
            continue
        played.requests += 1
        response = bridge(time, number)
        kind = kind_of(response)
        if kind == OK:
            played.delivered.add(number)
            continue
        delays = sender.after(kind).delays
        asked = _retry_after(response) if sender.obeys_retry_after and kind in ("429", "503") else None
        if sender.obeys_retry_after and kind in ("429", "503") and asked is None:
            delays = ()
        if attempt < len(delays):
            waited = (sender.timeout or 0.0) if response is None else 0.0
            heapq.heappush(queue, (time + waited + (asked or delays[attempt]), number, attempt + 1))
        else:
            played.lost.add(number)
        if attempt == 0 and sender.ban:
            failures += 1
            if failures == sender.ban.failures:
                failures, banned_until = 0, time + sender.ban.seconds
                played.bans += 1
    return played


def _retry_after(response: Response | None) -> float | None:
    """Return the seconds of a Retry-After that is below a minute."""
    seconds = response.headers.get("Retry-After", "") if response else ""
    return float(seconds) if seconds.isdigit() and int(seconds) < MINUTE else None


def outage(response: Response | None, good: Response, start: float, end: float) -> Bridge:
    """Return a bridge that gives `response` from `start` to `end`, and `good` before and after."""
    return lambda time, number: response if start <= time < end else good  # noqa: ARG005


# ---------------------------------------------------------------------- the page


EVERY_10_SECONDS = [10.0 * number for number in range(180)]
"""Half an hour of events, in the middle of which the bridge is down."""


def survives(sender: Sender, response: Response | None) -> str:
    """Return what is lost if the bridge gives this response for ten minutes."""
    down = outage(response, Response(200, {}), 10 * MINUTE, 20 * MINUTE)
    lost = len(play(sender, down, EVERY_10_SECONDS).lost)
    if not lost:
        return "nothing is lost"
    return "events are lost" if sender.after(kind_of(response)).is_exact else "events may be lost"


def table(responses: Mapping[str, Response | None]) -> str:
    """Return the table of docs/senders.md. `responses` are those of an outage, by the heading of their column."""
    heads = ["sender", *responses, "waits for", *KINDS]
    rows: list[Sequence[str]] = [heads, ["---"] * len(heads)]
    for sender in SENDERS:
        waits = f"{sender.timeout:g} s" if sender.timeout else "not documented"
        found = [sender.after(kind).words for kind in KINDS]
        ends = [survives(sender, response) for response in responses.values()]
        rows.append([PRESETS[sender.preset].title, *ends, waits, *found])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def notes() -> str:
    """Return the list of docs/senders.md: what is to be known of each sender besides."""
    return "\n".join(f"- **{PRESETS[sender.preset].title}**: {sender.note}" for sender in SENDERS)

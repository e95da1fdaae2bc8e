"""The times and limits of the engine."""

from dataclasses import dataclass

MINUTE, HOUR = 60, 3600
DAY = 24 * HOUR

RETRY_DELAYS = (
    30,
    2 * MINUTE,
    10 * MINUTE,
    30 * MINUTE,
    2 * HOUR,
    5 * HOUR,
    10 * HOUR,
    10 * HOUR,
    14 * HOUR,
    24 * HOUR,
)
"""Seconds from the first attempt to the second, and so on. After the last one a person decides."""
KEEP = 90 * DAY
"""Seconds for which an operation that has ended without a link is stored; and the payload of one that may be unlinked,
for the decision that follows."""
KEEP_ATTEMPTS = 40
"""Attempts that an operation stores, the newest. Its record must stay far below the 400 KB that the table takes."""
HANDED_OVER = 60
"""Seconds for which an operation that is due at once is lent to the message on its queue. If there is no message, or
none was taken by then, the dispatcher finds the operation due."""
MOST_ENDINGS = 10
"""Tries to settle an operation if what a flow writes with it was changed since it was read."""


@dataclass(frozen=True)
class Policy:
    """When an operation is sent again, and when the engine stops. All times are in seconds."""

    retry_delays: tuple[int, ...] = RETRY_DELAYS
    spread: float = 0.2
    """The share by which a delay is made longer or shorter at random."""
    patience: int = sum(RETRY_DELAYS)
    """The age up to which an operation is held back while the breaker is open."""
    shortest_hold: int = 30
    longest_hold: int = HOUR
    """While the breaker is open an operation is due again after half of its age, within these limits."""
    longest_wait: int = DAY
    """The longest Retry-After of a vendor that is followed."""
    clock_skew: int = 300
    """A record at the vendor may look older than our first attempt by this much, because clocks differ."""
    no_zone: int = 36 * HOUR
    """A time without a zone may be later than it looks in UTC by this much: 12 hours, and a day if it is a date."""
    keep: int = KEEP
    keep_failed: int = 30 * DAY
    """How long the exchanges of attempts that failed are stored after the last of them, at least."""
    most_defects: int = 3
    """Times that the bridge itself may fail on an operation before a person is asked."""
    most_compared: int = 1000
    """Records of a look-up whose links are read; a person compares the rest."""
    most_candidates: int = 10
    """Records that are stored for the person who decides."""
    longest_name: int = 200
    """Characters of the name of such a record."""

    @property
    def last_try(self) -> int:
        return len(self.retry_delays) + 1


POLICY = Policy()

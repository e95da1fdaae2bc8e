"""The calls of one attempt to a vendor: what is noted of them in memory, and what of that may be stored."""

from collections import deque
from collections.abc import Callable

from crm_bridge.errors import Event
from crm_bridge.outbound.response import VendorResponse, shown_body
from crm_bridge.storage.exchanges import Call, Exchange

MOST_CALLS = 10
"""Calls of an attempt that are stored, the latest. A look-up may make many."""


class Calls:
    """The calls of one run of a flow. Threads may share it.

    Of all bodies only the last call's are held, which are in memory anyhow.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives epoch seconds."""
        self._clock = clock
        self._calls: deque[Call] = deque(maxlen=MOST_CALLS)
        self._number = 0
        self._request: tuple[bytes, tuple[str, ...]] | None = None
        self._response: VendorResponse | None = None

    def add(
        self,
        method: str,
        path: str,
        outcome: int | str,
        milliseconds: int,
        *,
        secrets: tuple[str, ...],
        request: bytes | None,
        response: VendorResponse | None,
    ) -> None:
        """Note a call that is over, with its status or its kind of error.

        Its request and response are None if there was none, or if they may not be shown.
        """
        status, error = (outcome, None) if isinstance(outcome, int) else (None, outcome)
        begun = int(self._clock() * 1000) - milliseconds
        self._calls.append(Call(begun, method, path.partition("?")[0], status, error, milliseconds))
        self._number += 1
        self._request = (request, secrets) if request else None
        self._response = response

    def exchange(self, at: int, event: Event, *, bodies: bool) -> Exchange | None:
        """Return what is stored of an attempt that was over `at` (epoch seconds); None if nobody was called."""
        calls = tuple(self._calls)
        if not calls:
            return None
        request, response = self._request, self._response
        return Exchange(
            at,
            event,
            calls,
            left_out=self._number - len(calls),
            request=shown_body(request[0].decode(errors="replace"), request[1]) if bodies and request else None,
            response=shown_body(response.readable_text(), response.secrets) if bodies and response else None,
        )

"""Sources: senders that cannot shape their requests for the bridge's own routes.

Nothing here does I/O or knows AWS: `receive` makes events out of a request, `answer` and `try_again` the response.
"""

from crm_bridge.sources.incoming import Incoming, SourceEvent, unauthenticated
from crm_bridge.sources.presets import PRESETS
from crm_bridge.sources.receiving import answer, content_hash, receive, try_again
from crm_bridge.sources.settings import EventRoute, SourceSettings

__all__ = [
    "PRESETS",
    "EventRoute",
    "Incoming",
    "SourceEvent",
    "SourceSettings",
    "answer",
    "content_hash",
    "receive",
    "try_again",
    "unauthenticated",
]

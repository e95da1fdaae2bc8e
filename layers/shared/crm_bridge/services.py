"""The interface of the services that all runs of one execution environment share; `runtime` makes them."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from crm_bridge.cache import Cache
    from crm_bridge.outbound.oauth import Tokens
    from crm_bridge.storage.documents import Documents
    from crm_bridge.storage.links import Links
    from crm_bridge.storage.locks import Locks
    from crm_bridge.storage.operations import Operations


class Services(Protocol):
    """Our own tables, and what is kept in memory. Threads share it."""

    @property
    def operations(self) -> "Operations": ...

    @property
    def links(self) -> "Links": ...

    @property
    def locks(self) -> "Locks": ...

    @property
    def people(self) -> "Documents": ...

    @property
    def tokens(self) -> "Tokens": ...

    @property
    def cache(self) -> "Cache": ...

    @property
    def clock(self) -> Callable[[], float]:
        """Epoch seconds."""

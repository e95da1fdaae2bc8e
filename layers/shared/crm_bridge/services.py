"""What one execution environment has for all runs; `runtime` makes it."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from crm_bridge.accounts import Accounts
    from crm_bridge.documents import Documents
    from crm_bridge.links import Links
    from crm_bridge.memory import Memory
    from crm_bridge.oauth import Tokens
    from crm_bridge.operations import Operations


class Services(Protocol):
    """Our own tables, and what is kept in memory. Threads share it."""

    @property
    def operations(self) -> "Operations": ...

    @property
    def links(self) -> "Links": ...

    @property
    def accounts(self) -> "Accounts": ...

    @property
    def people(self) -> "Documents": ...

    @property
    def tokens(self) -> "Tokens": ...

    @property
    def memory(self) -> "Memory": ...

    @property
    def clock(self) -> Callable[[], float]:
        """Epoch seconds."""

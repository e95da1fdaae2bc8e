"""The registry: every vendor in one line. Tenants, secrets, scopes, `doctor` and prompts are derived from it.

A vendor is named here, not imported: a function imports only the vendor that it calls, since a cold start is mostly
imports.
"""

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from crm_bridge.outbound.vendor import Vendor


class Entry(NamedTuple):
    """One vendor: where its class is, and which functions call it."""

    part: str
    """The part of a tenant's document that it needs. Each part is a secret, `crm-bridge/<stage>/<part>/<tenant>`, so
    that the role of a function can name exactly what it reads."""
    module: str
    """In this package."""
    class_name: str
    functions: tuple[str, ...]
    is_for_callers: bool = True
    """Whether callers send these functions' events, and so need an API key with their scopes."""
    scopes: tuple[str, ...] = ()
    """The scopes of those of its functions' routes that need another one than the function's name."""
    has_mappings: bool = True
    """Whether a tenant may map its CRM's JSON to these functions' events."""

    def vendor(self) -> "type[Vendor[Any]]":
        """Return the class, which is imported now."""
        found: type[Vendor[Any]] = getattr(import_module(f"{__name__}.{self.module}"), self.class_name)
        return found


REGISTRY = (
    Entry("illu", "illu", "Illu", ("create_site", "create_job")),
    Entry("revio", "revio", "Revio", ("key_link",)),
    Entry("izzitup", "izzitup", "IzzitUp", ("status_update",)),
    Entry("egito", "egito", "Egito", ("connector_receiver",), scopes=("records",), has_mappings=False),
    Entry("webhook", "webhook", "Webhook", ("webhook",), is_for_callers=False, has_mappings=False),
)
PART_OF = {function: entry.part for entry in REGISTRY for function in entry.functions}
"""By function: the part of a tenant's document that it needs."""
SOURCES = "sources"
"""The part that is no vendor's, its only block, and the function that reads it: the tenant's senders."""


def called_functions() -> frozenset[str]:
    """Return the functions that callers send events to. A key needs the scope of that name."""
    return frozenset(function for entry in REGISTRY if entry.is_for_callers for function in entry.functions)


def scopes() -> frozenset[str]:
    """Return the scopes of the routes by which vendors are reached."""
    return called_functions().union(*(entry.scopes for entry in REGISTRY))


@cache
def vendors(part: str | None = None) -> "tuple[type[Vendor[Any]], ...]":
    """Return the vendors of one part of a tenant's document, or all of them."""
    return tuple(entry.vendor() for entry in REGISTRY if part in (None, entry.part))

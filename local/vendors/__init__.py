"""Simulators of the vendors, over real HTTP, with faults on demand.

Each behaves as its vendor is documented to. What is not documented is marked as ours in its module. The simulator of a
registered vendor is in the module of the same name as the vendor's own, in `crm_bridge.vendors`.
"""

from importlib import import_module

from crm_bridge.vendors import Entry
from local.vendors.simulator import Simulator


def simulator_of(entry: Entry) -> type[Simulator]:
    """Return the simulator's class of a registered vendor."""
    module = import_module(f"{__name__}.{entry.module}")
    (found,) = (
        one
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, Simulator) and one.__module__ == module.__name__
    )
    return found

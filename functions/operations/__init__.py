"""For people: shows and resolves operations, and finds linked ids."""

import crm_bridge  # noqa: F401 - before pydantic, see there

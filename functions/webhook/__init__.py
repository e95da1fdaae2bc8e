"""What became of an operation that was answered with 202 is told at the address that its tenant names."""

import crm_bridge  # noqa: F401 - before pydantic, see there

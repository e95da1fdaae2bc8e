"""Sends the outcome of an operation whose caller got a 202 to the address that its tenant names."""

import crm_bridge  # noqa: F401 - before pydantic, see there

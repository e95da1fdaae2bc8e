"""A new request or ticket in a CRM becomes a job at illu."""

import crm_bridge  # noqa: F401 - before pydantic, see there

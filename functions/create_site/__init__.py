"""A new customer in a CRM becomes a site at illu."""

import crm_bridge  # noqa: F401 - before pydantic, see there

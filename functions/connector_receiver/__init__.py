"""Prospects and members of gyms, which the InTouch Connector delivers, become records in Egito."""

import crm_bridge  # noqa: F401 - before pydantic, see there

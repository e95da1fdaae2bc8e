"""What the InTouch Connector delivers, prospects and members of gyms, becomes records in Egito."""

import crm_bridge  # noqa: F401 - before pydantic, see there

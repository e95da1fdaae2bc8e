"""A service that is impaired, down or back is shown so on a status page."""

import crm_bridge  # noqa: F401 - before pydantic, see there

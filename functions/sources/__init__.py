"""sources: takes in the events of senders that cannot shape their requests, and shows what was refused."""

import crm_bridge  # noqa: F401 - before pydantic, see there

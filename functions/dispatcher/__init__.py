"""On a schedule: puts what is due on the queue of its flow."""

import crm_bridge  # noqa: F401 - before pydantic, see there

"""What became of an event, what is to become of it, and which id belongs to which: for people."""

import crm_bridge  # noqa: F401 - before pydantic, see there

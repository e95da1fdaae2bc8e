"""An account in another system becomes a key link at Rev.io."""

import crm_bridge  # noqa: F401 - before pydantic, see there

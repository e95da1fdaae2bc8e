"""The parts that all functions of the CRM Bridge share: engine, tables, HTTP and queue entries, vendors' clients."""

import gc
import os
import sys
import warnings

__version__ = "1.0.0"

if "AWS_LAMBDA_FUNCTION_NAME" in os.environ:
    # A cold start is mostly imports. Imported modules stay, so a search for garbage among them finds nothing
    # (`runtime` switches it on again), nor are there plug-ins of pydantic to look for.
    gc.disable()
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    # The layer has no package that guesses encodings (see trim.py), because the bridge reads bytes.
    warnings.filterwarnings("ignore", "Unable to find acceptable character detection", module="requests")

# If pydantic is imported already, Powertools' batch utility imports its parser with models of all event sources. That
# takes twice as long, and the layer does not have it (trim.py).
_pydantic = sys.modules.pop("pydantic", None)
import aws_lambda_powertools.utilities.batch  # noqa: E402, F401

if _pydantic:
    sys.modules["pydantic"] = _pydantic

from crm_bridge.engine import Context, Required  # noqa: E402 - after what is above
from crm_bridge.flow import Change, Command, Create, Flow, FromSource, Import, Kind, Match, Need, Result, Update  # noqa: E402
from crm_bridge.function import Function  # noqa: E402
from crm_bridge.outbound.vendor import Vendor  # noqa: E402
from crm_bridge.settings import Settings  # noqa: E402
from crm_bridge.storage.links import Cardinality, Identity, Link  # noqa: E402

__all__ = [
    "Cardinality",
    "Change",
    "Command",
    "Context",
    "Create",
    "Flow",
    "FromSource",
    "Function",
    "Identity",
    "Import",
    "Kind",
    "Link",
    "Match",
    "Need",
    "Required",
    "Result",
    "Settings",
    "Update",
    "Vendor",
]

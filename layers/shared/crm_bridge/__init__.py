"""What every function of the CRM Bridge shares: the engine, its tables, the HTTP and queue entries, the clients."""

import gc
import os
import warnings

if "AWS_LAMBDA_FUNCTION_NAME" in os.environ:
    # A cold start is mostly imports. Imported modules stay, so a search for garbage among them finds nothing
    # (`runtime` switches it on again), nor are there plug-ins of pydantic to look for.
    gc.disable()
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    # The layer has no package that guesses encodings (see trim.py), because the bridge reads bytes.
    warnings.filterwarnings("ignore", "Unable to find acceptable character detection", module="requests")

# If pydantic is imported already, this imports Powertools' parser with models of all event sources. That takes twice as
# long, and the layer does not have it (trim.py). So each function's package imports `crm_bridge` first.
import aws_lambda_powertools.utilities.batch  # noqa: F401

ON_LAMBDA = "AWS_LAMBDA_FUNCTION_NAME" in os.environ

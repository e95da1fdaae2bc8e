"""What every function of the CRM Bridge shares: the engine, its tables, the HTTP and queue entries, the clients."""

import gc
import os
import warnings

if "AWS_LAMBDA_FUNCTION_NAME" in os.environ:
    # A cold start is for the most part imports. What is imported stays, so looking for garbage in it takes time for
    # nothing (`runtime` turns it on), and so does looking for plug-ins of pydantic, of which there are none.
    gc.disable()
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    # The layer has nothing that guesses what text an answer is in (see trim.py), because the bridge reads bytes.
    warnings.filterwarnings("ignore", "Unable to find acceptable character detection", module="requests")

"""`python -m tests.fuzz`: schemathesis tries what docs/openapi.json promises on the local stack, over real HTTP.

Exit code 0 if the stack kept all of it. What is expected, and what is left out and why, is in schemathesis.toml.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

from botocore.config import Config

from crm_bridge import aws
from crm_bridge.telemetry import logger
from openapi.document import ROOT
from tests.documented import closed
from tests.stack import Stack

PATIENCE = 60
"""Seconds."""
CONFIG = Path(__file__).parent / "schemathesis.toml"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--examples", type=int, default=5, metavar="N", help="cases of each operation (default 5)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="makes other cases (default 1)")
    parser.add_argument("--long", action="store_true", help="also every keyword of the schemas, one by one (minutes)")
    parser.add_argument("more", nargs="*", help="further options of `schemathesis run`, after --")
    options = parser.parse_args()
    phases = ["examples", *(["coverage"] if options.long else []), "fuzzing", "stateful"]
    handler = logger().handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(StringIO())
    # The embedded DynamoDB takes the longer the more it holds, and here it comes to hold much.
    patient = patch.object(aws, "CONFIG", aws.CONFIG.merge(Config(read_timeout=PATIENCE)))
    with patient, Stack(background=False) as stack, tempfile.TemporaryDirectory() as folder:
        # Whoever waits for a turn moves the time on instead.
        waits = SimpleNamespace(sleep=stack.move_clock)
        with (
            patch("crm_bridge.sequence.time", waits),
            patch("crm_bridge.outbound.oauth.time", waits),
            redirect_stdout(StringIO()),  # of the functions' metrics; schemathesis writes by itself
        ):
            document = Path(folder) / "openapi.json"
            document.write_text(json.dumps(closed()))
            command = [
                str(Path(sys.executable).parent / "schemathesis"),
                f"--config-file={CONFIG}",
                "run",
                str(document),
                f"--url={stack.url}",
                f"--seed={options.seed}",
                f"--request-timeout={PATIENCE}",
                f"--max-examples={options.examples}",
                f"--phases={','.join(phases)}",
                *options.more,
            ]
            return subprocess.run(
                command, cwd=ROOT, env={**os.environ, "API_KEY": stack.api_key}, check=False
            ).returncode


if __name__ == "__main__":
    sys.exit(main())

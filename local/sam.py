"""`sam local`: the built functions in containers, against a running `make run OPTIONS=--containers`.

`python -m local.sam invoke FLOW EVENT` and `python -m local.sam start-api`; more options are passed on to SAM CLI.
"""

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NoReturn

from local.events import EVENTS, function_of
from local.private_file import private_file
from local.server import HOST_OF_CONTAINERS
from local.stack import Stack
from local.template import TEMPLATE

ROOT = TEMPLATE.parent
SAM = ROOT / ".venv-sam" / "bin" / "sam"
BUNDLE = ROOT / ".aws-sam" / "bundle"
"""Built for this machine, by `make`."""
ENVIRONMENT = ROOT / ".local" / "env.json"
"""The environment of the functions, as long as a stack that may be called from containers is running."""
PORT = 3010
"""Of `sam local start-api`; the local stack has 3000 to 3006."""
USAGE = "usage: python -m local.sam invoke FLOW EVENT [OPTION...] | start-api [OPTION...]"


class NotReadyError(Exception):
    """Something has to be done first."""


def environment_file(stack: Stack) -> AbstractContextManager[None]:
    """Keep the functions' environment where SAM CLI finds it. Source of its format:
    https://docs.aws.amazon.com/serverless-application-model/latest/developerguide/serverless-sam-cli-using-invoke.html
    """
    return private_file(ENVIRONMENT, json.dumps({"Parameters": stack.container_environment}, indent=2) + "\n")


def command(arguments: Sequence[str], machine: str) -> list[str]:
    """SAM CLI's command line for ours. Raises NotReadyError."""
    if not ENVIRONMENT.exists():
        raise NotReadyError("start the local stack in another terminal first: make run OPTIONS=--containers")
    architecture = "x86_64" if machine in ("x86_64", "AMD64") else "arm64"
    common = [
        *("--template", str(_local_template()), "--env-vars", str(ENVIRONMENT)),
        *("--parameter-overrides", f"Architecture={architecture}"),
        *("--add-host", f"{HOST_OF_CONTAINERS}:host-gateway"),
    ]
    match arguments:
        case ["invoke", flow, case, *options]:
            event = EVENTS / flow / f"{case}.json"
            if not event.exists():
                raise NotReadyError(f"there is no event {flow}/{case}; events/ has them")
            return [str(SAM), "local", "invoke", function_of(flow), "--event", str(event), *common, *options]
        case ["start-api", *options]:
            serve = ["--port", str(PORT), "--warm-containers", "LAZY"]  # else each request waits for a container
            return [str(SAM), "local", "start-api", *serve, *common, *options]
    raise NotReadyError(USAGE)


def _local_template() -> Path:
    """The built template, whose functions may be given the address of the embedded AWS, and call vendors on this
    machine: SAM CLI sets no variable that a template does not name, and on AWS these must not be there."""
    built = (BUNDLE / "template.yaml").read_text()
    before, variables, after = built.partition("    Environment:\n      Variables:\n")
    local = BUNDLE / "local.yaml"
    local.write_text(f'{before}{variables}        AWS_ENDPOINT_URL: ""\n        LOCAL_HOSTS: ""\n{after}')
    return local


def account(environment: Mapping[str, str]) -> dict[str, str]:
    """SAM CLI's environment. Its functions get the credentials that it has, so it gets none of a real account."""
    ours = {name: value for name, value in environment.items() if not name.startswith("AWS_")}
    parameters: dict[str, str] = json.loads(ENVIRONMENT.read_text())["Parameters"]
    theirs = {
        name: value for name, value in parameters.items() if name.startswith("AWS_") and name != "AWS_ENDPOINT_URL"
    }
    return {**ours, **theirs, "SAM_CLI_TELEMETRY": "0"}


def main() -> NoReturn:
    try:
        line = command(sys.argv[1:], platform.machine())
    except NotReadyError as error:
        sys.stderr.write(f"crm-bridge: {error}\n")
        sys.exit(2)
    os.execve(line[0], line, account(os.environ))  # noqa: S606 - our own SAM CLI, with no shell between


if __name__ == "__main__":
    main()

"""`python -m local`: start the whole bundle on this machine and leave it running."""

import argparse
import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError
from pydantic import ValidationError
from rich.console import Console

from cli.bridge import access_key_file
from crm_bridge.settings import parse_tenant
from crm_bridge.vendors import vendors
from local.private_file import private_file
from local.sam import environment_file
from local.server import PortInUseError
from local.stack import DEMO_KEY, LOCAL_HOSTS, PORTS, REGION, WEBHOOK_KEY, Stack
from local.vendors.simulator import Example, Simulator
from local.vendors.webhook import ReceiverSimulator

JSON = "-H 'Content-Type: application/json'"
HIGHEST_PORT = 65_536 - PORTS


def main() -> int:
    options = parser().parse_args()
    if options.no_vendors and not options.tenant:
        return _failed("--no-vendors needs --tenant: the demo tenant has no vendors but the simulated ones")
    if options.containers and options.aws_endpoint:
        return _failed("--containers is for the embedded AWS; it writes credentials where SAM CLI finds them")
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    try:
        stack = Stack(
            port=options.port,
            tenant=_tenant(options.tenant) if options.tenant else None,
            vendors=not options.no_vendors,
            aws_endpoint=options.aws_endpoint,
            containers=options.containers,
        )
        with ExitStack() as exits:
            exits.enter_context(stack)
            if options.containers:
                exits.enter_context(environment_file(stack))
            if stack.aws and options.port:
                exits.enter_context(
                    private_file(access_key_file(options.port), stack.aws.credentials["AWS_ACCESS_KEY_ID"])
                )
            _banner(stack, options.port)
            stopped.wait()
    except (PortInUseError, _TenantFileError) as error:
        return _failed(str(error))
    except (BotoCoreError, ClientError, ValueError) as error:
        if options.aws_endpoint is None:
            raise
        return _failed(f"the AWS endpoint cannot be used: {error}")
    sys.stderr.write("stopped\n")
    return 0


def _failed(reason: str) -> int:
    sys.stderr.write(f"crm-bridge: {reason}\n")
    return 2


class _TenantFileError(Exception):
    pass


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > HIGHEST_PORT:
        raise argparse.ArgumentTypeError(f"give a number from 0 to {HIGHEST_PORT}")
    return int(text)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m local",
        description="Start the CRM Bridge on this machine: its functions behind a gateway, embedded AWS, simulated "
        "vendors, and a demo tenant. Ctrl-C stops everything. Nothing is kept, and only this machine can connect, "
        "unless --containers is given.",
    )
    made.add_argument(
        "--port",
        type=_port,
        default=3000,
        metavar="N",
        help="the gateway's port; the embedded AWS takes N+1, the simulators those after (default 3000; 0: free ports)",
    )
    made.add_argument(
        "--tenant",
        type=Path,
        metavar="FILE.json",
        help="use this tenant instead of the demo tenant: the document that Secrets Manager would hold, named as the "
        "file; docs/settings.md describes it",
    )
    made.add_argument(
        "--no-vendors",
        action="store_true",
        help="start no simulators: what the tenant's base_url names is called. With real credentials, real records!",
    )
    made.add_argument(
        "--aws-endpoint",
        metavar="URL",
        help="use this AWS endpoint (LocalStack, ministack) instead of the embedded one; tables and queues are created "
        "there with CloudFormation, with the AWS credentials of your environment",
    )
    made.add_argument(
        "--containers",
        action="store_true",
        help="let `make sam-invoke` and `make sam-api` in another terminal use the embedded AWS and the simulators. "
        "Everybody in your network can use the simulators, then",
    )
    return made


def _tenant(path: Path) -> tuple[str, str]:
    try:
        document = path.read_text()
        parse_tenant(document, LOCAL_HOSTS)
    except OSError as error:
        raise _TenantFileError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise _TenantFileError(f"{path} is not text in UTF-8") from None
    except ValidationError as error:
        details = error.errors(include_input=False, include_url=False)
        problems = "; ".join(f"{'.'.join(map(str, d['loc'])) or 'the document'}: {d['msg']}" for d in details)
        raise _TenantFileError(f"{path} is not a tenant: {problems}") from None
    return path.stem, document


def _banner(stack: Stack, port: int) -> None:
    named = parse_tenant(stack.tenant_document, LOCAL_HOSTS)
    used = ((vendor.name, getattr(named.of(vendor.settings_model), "base_url", None)) for vendor in vendors())
    addresses = {name: address for name, address in used if address}
    lines = [
        "",
        "[bold]CRM Bridge is running.[/bold] Ctrl-C stops it; nothing is kept.",
        "",
        f"  gateway   {stack.url}",
        f"  console   {stack.url}/console",
        f"  AWS       {stack.aws_url}",
        f"  tenant    {stack.tenant_name}",
        f"  its key   {stack.api_key}",
    ]
    for name, address in addresses.items():
        simulator = next((one.url for one in stack.vendors if address.startswith(one.url)), None)
        lines.append(
            f"  {name:9} {simulator}   (simulated; {simulator}/_state shows what it holds)"
            if simulator
            else f"  {name:9} {address}   (not simulated: what you send becomes a real record there)"
        )
    if stack.api_key == DEMO_KEY:
        url = stack.simulator(ReceiverSimulator).url
        lines.append(
            f"  webhooks  {url}   (results of events that got 202 with the key {WEBHOOK_KEY}; {url}/_state shows them)"
        )
    variables = {"CRM_BRIDGE_URL": stack.url, "CRM_BRIDGE_API_KEY": stack.api_key}
    if stack.aws and port:  # else the command line does not find the AWS
        variables = {"CRM_BRIDGE_LOCAL": "1", "CRM_BRIDGE_PORT": str(port), **variables}
    lines += [
        "",
        f"For crm-bridge, and the examples of {stack.url}/docs, in another terminal:",
        "",
        f'  export PATH="{Path(sys.executable).parent}:$PATH" '
        + " ".join(f"{name}={value}" for name, value in variables.items()),
    ]
    if stack.aws:
        account = {"AWS_ENDPOINT_URL": stack.aws_url, "AWS_DEFAULT_REGION": REGION, **stack.aws.credentials}
        lines += [
            "",
            "For the AWS CLI in another terminal. The access key is random, and valid until Ctrl-C:",
            "",
            f"  export {' '.join(f'{name}={value}' for name, value in account.items())}",
        ]
    for vendor in stack.vendors:
        if any(address.startswith(vendor.url) for address in addresses.values()):
            for example in vendor.examples():
                lines += ["", example.text, "", *_commands(stack, vendor, example)]
    lines += ["", "All that was sent.", "", _curl(stack, "GET", "/operations")]
    lines += ["", "Log of the functions:"]
    # Lines that were wrapped could not be pasted.
    Console(stderr=True, highlight=False).print("\n".join(lines), soft_wrap=True)


def _commands(stack: Stack, simulator: Simulator, example: Example) -> Iterator[str]:
    if example.fault:
        yield f"  curl {simulator.url}/_faults -d '{json.dumps({'kind': example.fault})}'"
        yield ""
    yield _curl(stack, example.method, example.path, example.body)


def _curl(stack: Stack, method: str, path: str, body: object = None) -> str:
    verb = "" if method == ("GET" if body is None else "POST") else f"-X {method} "
    sent = "" if body is None else f" \\\n    {JSON} -d '{json.dumps(body)}'"
    return f"  curl {verb}'{stack.url}{path}' {_key(stack)}{sent}"


def _key(stack: Stack) -> str:
    return f"-H 'Authorization: Bearer {stack.api_key}'"


if __name__ == "__main__":
    sys.exit(main())

"""`python -m local`: start the whole bundle on this machine and leave it running."""

import argparse
import json
import signal
import sys
import threading
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console

from crm_bridge.tenants import parse_tenant
from local.server import PortInUseError
from local.stack import Stack


def main() -> int:
    options = parser().parse_args()
    try:
        stack = Stack(
            port=options.port,
            tenant=_tenant(options.tenant) if options.tenant else None,
            vendors=not options.no_vendors,
            aws_endpoint=options.aws_endpoint,
        )
        with stack:
            _banner(stack, vendors=not options.no_vendors)
            _wait_for_signal()
    except (PortInUseError, _TenantFileError) as error:
        sys.stderr.write(f"crm-bridge: {error}\n")
        return 2
    sys.stderr.write("stopped\n")
    return 0


class _TenantFileError(Exception):
    pass


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m local",
        description="Start the CRM Bridge on this machine: its functions behind a gateway, embedded AWS, simulated "
        "vendors, and a demo tenant. Ctrl-C stops everything. Nothing is kept, and only this machine can connect.",
    )
    made.add_argument(
        "--port",
        type=int,
        default=3000,
        metavar="N",
        help="the gateway's port; the embedded AWS takes N+1, the simulators those after (default 3000; 0: free ports)",
    )
    made.add_argument(
        "--tenant",
        type=Path,
        metavar="FILE.json",
        help="use this tenant instead of the demo tenant: the document that Secrets Manager would hold, named as the "
        "file; docs/configuration.md describes it",
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
    return made


def _tenant(path: Path) -> tuple[str, str]:
    try:
        document = path.read_text()
        parse_tenant(document)
    except OSError as error:
        raise _TenantFileError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise _TenantFileError(f"{path} is not text in UTF-8") from None
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in detail['loc']) or 'the document'}: {detail['msg']}"
            for detail in error.errors(include_input=False, include_url=False)
        )
        raise _TenantFileError(f"{path} is not a tenant: {problems}") from None
    return path.stem, document


def _banner(stack: Stack, *, vendors: bool) -> None:
    lines = [
        "",
        "[bold]CRM Bridge is running.[/bold] Ctrl-C stops it; nothing is kept.",
        "",
        f"  gateway   {stack.url}",
        f"  AWS       {stack.aws_url}",
    ]
    if vendors:
        lines.append(f"  illu      {stack.illu.url}   (simulated; {stack.illu.url}/_state shows what it holds)")
    lines += [
        f"  tenant    {stack.tenant_name}",
        "",
        "A new customer becomes a site. Send it twice: there is still one.",
        "",
    ]
    lines += _curls(stack)
    if vendors:
        lines += [
            "Let illu do it, but lose its answer. The next new customer is answered 202, and within two minutes the",
            "bridge finds the site by itself.",
            "",
            f"""  curl {stack.illu.url}/_faults -H 'Content-Type: application/json' -d '{{"kind": "close_after"}}'""",
            "",
        ]
    lines.append("Log of the functions:")
    # Lines that were wrapped could not be pasted.
    Console(stderr=True, highlight=False).print("\n".join(lines), soft_wrap=True)


def _curls(stack: Stack) -> list[str]:
    key = f"-H 'Authorization: Bearer {stack.api_key}'"
    customer = {
        "customer_id": "C-1001",
        "name": "Shop 12, Kitale",
        "latitude": 1.0157,
        "longitude": 35.0062,
        "address": "Moi Ave 12",
    }
    return [
        f"  curl {stack.url}/sites {key} \\",
        f"    -H 'Content-Type: application/json' -d '{json.dumps(customer)}'",
        "",
        f"  curl {stack.url}/links/crm/customer/C-1001 {key}",
        "",
    ]


def _wait_for_signal() -> None:
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    stopped.wait()


if __name__ == "__main__":
    sys.exit(main())

"""Prints what went between the bridge and a vendor in the attempts of an operation."""

from collections.abc import Sequence

from cli.output import Output, moment
from crm_bridge.storage.exchanges import Exchange


def print_exchanges(output: Output, exchanges: Sequence[Exchange], *, bodies: bool) -> None:
    """Print the calls of each attempt, the latest first; with `bodies` also the last request and its response."""
    if not exchanges:
        return
    output.line("Calls to the vendor, the latest attempt first:", style="bold")
    for exchange in exchanges:
        output.line(f"  {moment(exchange.at)}  {exchange.event}")
        if exchange.left_out:
            output.line(f"    after {exchange.left_out:,} more")
        for call in exchange.calls:
            path = f" {call.path}" if call.path else ""
            output.line(f"    {call.method}{path}: {call.error or call.status}, {call.milliseconds:,} ms")
        if bodies and exchange.request:
            output.line(f"    request   {exchange.request}")
        if bodies and exchange.response:
            output.line(f"    response  {exchange.response}")
    if not bodies and any(one.request or one.response for one in exchanges):
        output.line("  --payload shows what was sent and what came back.")

"""`python -m tests.record_responses`: write openapi/recorded.json again, out of a local stack for each event."""

import sys

from crm_bridge.inbound.api import JSON
from local.events import function_of, load_event
from local.stack import WEBHOOK_KEY
from local.vendors.simulator import Kind
from openapi.document import WEBHOOK
from openapi.recorded import Recorded, as_recorded, write
from tests.cases import CASES, QUEUED
from tests.integration.test_events import invoke
from tests.stack import Stack


def main() -> None:
    found = []
    for event, before, status in CASES:
        with Stack(background=False) as stack:
            for earlier in before:
                invoke(stack, earlier)
            found.append(as_recorded(event, invoke(stack, event)))
        if found[-1].status != status:
            raise SystemExit(f"{event} was returned {found[-1].status} in place of {status}. Nothing was recorded.")
        sys.stderr.write(f"{event}: {found[-1].status}\n")
    for flow, case, vendor, before in QUEUED:
        with Stack(background=False) as stack:
            for earlier in before:
                invoke(stack, earlier)
            getattr(stack, vendor).fail(Kind.UNAVAILABLE)
            found.append(as_recorded(f"{flow}/{case}", invoke(stack, f"{flow}/{case}")))
        sys.stderr.write(f"{flow}/{case}: {found[-1].status}\n")
    write([*found, webhook()])


def webhook() -> Recorded:
    """Return the webhook about a site that was made when illu was back."""
    with Stack(background=False) as stack:
        stack.illu.fail(Kind.UNAVAILABLE)
        event = load_event("create_site", "new")
        event["headers"]["authorization"] = f"Bearer {WEBHOOK_KEY}"
        stack.invoke(function_of("create_site"), event)
        for _ in range(3):
            stack.deliver_due(after=60)
        (body,) = stack.receiver.received.values()
    return Recorded(WEBHOOK, 204, JSON, body)


if __name__ == "__main__":
    main()

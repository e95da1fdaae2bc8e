"""Entry of webhook: queue events in. No caller asks for a webhook, so there is no route."""

from collections.abc import Mapping
from typing import Any

from crm_bridge.api import Context
from crm_bridge.runtime import runtime
from crm_bridge.worker import consume
from webhook.flow import WebhookFlow


def lambda_handler(event: Mapping[str, Any], context: Context) -> Mapping[str, object]:
    return consume(event, context, runtime().engine, WebhookFlow(runtime().accounts, runtime().clock))

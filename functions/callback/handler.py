"""Entry of callback: queue events in. No caller asks for a callback, so there is no route."""

from collections.abc import Mapping
from typing import Any

from callback.flow import CallbackFlow
from crm_bridge.api import Context
from crm_bridge.runtime import runtime
from crm_bridge.worker import consume


def lambda_handler(event: Mapping[str, Any], context: Context) -> Mapping[str, object]:
    return consume(event, context, runtime().engine, CallbackFlow(runtime().accounts, runtime().clock))

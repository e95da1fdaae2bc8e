"""The flows by their names, for whoever has an operation and needs to know what it was to become."""

from collections.abc import Callable, Mapping
from typing import Any

from connector_receiver.handler import flow as connector_receiver
from create_job.handler import flow as create_job
from create_site.flow import CreateSiteFlow
from crm_bridge.engine import Flow
from key_link.handler import flow as key_link
from status_update.handler import flow as status_update

FLOWS: Mapping[str, Callable[[], Flow[Any, Any, Any]]] = {
    "create_site": CreateSiteFlow,
    "create_job": create_job,
    "key_link": key_link,
    "status_update": status_update,
    "connector_receiver": connector_receiver,
}
"""All but webhooks, which make no record that could be linked."""

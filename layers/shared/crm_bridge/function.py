"""A Lambda function: the flows that it runs, and the routes by which callers reach it."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from crm_bridge.flow import Flow
from crm_bridge.inbound.api import (
    LambdaContext,
    Language,
    Request,
    Response,
    Route,
    receive,
    respond,
    run,
    to_response,
)
from crm_bridge.inbound.worker import consume
from crm_bridge.runtime import runtime


class Function:
    """The entry of one Lambda function, called with events of the HTTP API and of its queue.

    Each of the `flows` that declares a route is reached by it; `routes` are all others. A caller's API key needs the
    scope `name`, or what `scopes` says of the route. `language` puts responses into what a caller understands.
    """

    def __init__(
        self,
        name: str,
        *flows: type[Flow[Any, Any, Any]],
        routes: Mapping[str, Route] | None = None,
        scopes: Mapping[str, str] | None = None,
        language: Language | None = None,
    ) -> None:
        self.name = name
        self.flows = {flow.name: flow for flow in flows}
        self.routes = {flow.route: partial(_run, flow) for flow in flows if flow.route} | dict(routes or {})
        self._scopes, self._language = scopes, language

    def __call__(self, event: Mapping[str, Any], context: LambdaContext) -> Mapping[str, object]:
        if "Records" in event:
            return consume(event, context, runtime().engine, self.name, self.flows)
        return respond(
            event,
            context,
            self.routes,
            function=self.name,
            keys=runtime().keys,
            scopes=self._scopes,
            language=self._language,
        )


def _run(flow: type[Flow[Any, Any, Any]], request: Request) -> Response:
    """Send the event in a request, and return the response to its caller."""
    command, mapping = receive(request, flow.function, flow.command)
    return to_response(run(request, flow, command, mapping), flow)

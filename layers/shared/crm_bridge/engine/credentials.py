"""Calls of a vendor with a tenant's credentials, which are read again once if the vendor refuses them."""

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from crm_bridge.errors import NotDoneError, SignInRefusedError, UnavailableError
from crm_bridge.flow import Flow
from crm_bridge.outbound.transport import Transport
from crm_bridge.outbound.vendor import Vendor
from crm_bridge.services import Services
from crm_bridge.telemetry import count


class Credentials:
    """Makes the clients of the vendors. One instance per execution environment; threads may share it."""

    def __init__(self, transport: Transport, services: Services) -> None:
        self._transport = transport
        self._services = services

    def client[C: BaseModel, V: Vendor[Any], R: BaseModel](self, flow: Flow[C, V, R]) -> V:
        """Return the client of the flow's vendor with its context's settings. Raises NotConfiguredError."""
        context = flow.context
        transport = self._transport.of(context.scope, context.calls)
        return flow.vendor.for_tenant(context.settings, transport, context.deadline, self._services)

    def signed_in[C: BaseModel, V: Vendor[Any], R: BaseModel, T](
        self, flow: Flow[C, V, R], call: Callable[[V], T], vendor: V | None = None
    ) -> T:
        """Return what `call` returns, with this `vendor` if it is made already.

        If the vendor refuses the credentials, they are read again, because they may have changed just now; if they
        have, `call` is made once more. Raises VendorError.
        """
        try:
            try:
                return call(vendor or self.client(flow))
            except SignInRefusedError:
                if not flow.context.read_settings_again():
                    raise
            return call(self.client(flow))
        except SignInRefusedError as error:
            count("SignInRefused", vendor=error.vendor)
            raise
        except UnavailableError as error:
            raise NotDoneError(error.detail, vendor=flow.vendor.name) from error

"""Calls of a vendor with a tenant's credentials, which are read again once if the vendor refuses them."""

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from crm_bridge.engine.flow import Flow, Vendor
from crm_bridge.errors import NotDoneError, SignInRefusedError, UnavailableError
from crm_bridge.settings import Tenant
from crm_bridge.telemetry import count
from crm_bridge.tenants import Tenants
from crm_bridge.transport import Deadline, Scope, Transport


class Credentials:
    """Makes the clients of the vendors. One instance per execution environment; threads may share it."""

    def __init__(self, tenants: Tenants, transport: Transport) -> None:
        self._tenants = tenants
        self._transport = transport

    def client[V: Vendor](self, flow: Flow[Any, V, Any], tenant: str, settings: Tenant, deadline: Deadline) -> V:
        """Return the client of the flow's vendor with these settings. Raises NotConfiguredError."""
        return flow.vendor(tenant, settings, self._transport.of(Scope(tenant, settings.version)), deadline)

    def signed_in[C: BaseModel, V: Vendor, R: BaseModel, T](
        self, flow: Flow[C, V, R], tenant: str, deadline: Deadline, call: Callable[[V], T]
    ) -> T:
        """Return what `call` returns.

        If the vendor refuses the credentials, they are read again, because they may have changed just now; if they
        have, `call` is made once more. Raises VendorError.
        """
        try:
            settings = self._tenants.get(tenant, flow.name)
            try:
                return call(self.client(flow, tenant, settings, deadline))
            except SignInRefusedError:
                fresh = self._tenants.get(tenant, flow.name, fresh=True)
                if fresh == settings:
                    raise
            return call(self.client(flow, tenant, fresh, deadline))
        except SignInRefusedError as error:
            count("SignInRefused", vendor=error.vendor)
            raise
        except UnavailableError as error:
            raise NotDoneError(error.detail, vendor=flow.name) from error

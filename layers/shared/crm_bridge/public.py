"""Connections to public addresses only, for calls to wherever a tenant says.

The name is looked up once. All that is found must be public, and nothing else is connected to: a second look-up might
find something else (DNS rebinding). TLS is verified against the name as ever, and there is no call without TLS.
"""

import ipaddress
import socket
from typing import Any, override

import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPSConnection
from urllib3.util.connection import create_connection

GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")


class NotPublicError(urllib3.exceptions.HTTPError):
    """A name leads to an address that is none of the Internet's."""


def is_public(address: str) -> bool:
    """Not if it may lead to a private one: IPv4 in IPv6 (mapped, NAT64, 6to4, Teredo) is not public, whatever it is."""
    found = ipaddress.ip_address(address)
    return found.is_global and not found.is_multicast and (found.version == 4 or found in GLOBAL_UNICAST)


class _PublicConnection(HTTPSConnection):
    @override
    def _new_conn(self) -> socket.socket:
        found = socket.getaddrinfo(self.host.strip("[]"), self.port, type=socket.SOCK_STREAM)
        addresses = dict.fromkeys(str(where[0]) for *_, where in found)
        if not all(map(is_public, addresses)):
            raise NotPublicError
        failed = OSError("it has no address")
        for address in addresses:
            try:
                return create_connection((address, self.port), self.timeout, self.source_address, self.socket_options)
            except OSError as error:
                failed = error
        raise failed


class _PublicPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _PublicConnection


class PublicAdapter(HTTPAdapter):
    """Sends requests to `https://` only; others end in InvalidURL."""

    @override
    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = {"https": _PublicPool}
        self.poolmanager.key_fn_by_scheme = {"https": self.poolmanager.key_fn_by_scheme["https"]}

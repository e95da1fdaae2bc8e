"""Connections to public addresses only: a tenant's settings name the addresses of its vendors and of its webhook.

Any other address is the function's own machine (the Lambda Runtime API, instance metadata), or leads nowhere.

The name is looked up once. All that is found must be public, and nothing else is connected to: a second look-up might
find something else (DNS rebinding). TLS is verified against the name as ever, and there is no call without TLS.
"""

import ipaddress
import os
import socket
from contextlib import suppress
from typing import override

import urllib3
from urllib3.connection import HTTPSConnection
from urllib3.util.connection import create_connection

from crm_bridge.outbound.connections import Cuttable, CuttableAdapter, check, used

GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")


class NotPublicError(urllib3.exceptions.HTTPError):
    """A name leads to an address that is none of the Internet's."""


def is_public(address: str) -> bool:
    """Return whether an address is public. IPv4 in IPv6 (mapped, NAT64, 6to4, Teredo) is not: it may be private."""
    found = ipaddress.ip_address(address)
    return found.is_global and not found.is_multicast and (found.version == 4 or found in GLOBAL_UNICAST)


def is_public_host(host: str) -> bool:
    """Return False for a name of this machine, and for an address, in any notation that a look-up takes (decimal,
    octal, hexadecimal, fewer than four parts), that is not public. Any other name is only known once it is looked up.
    """
    name = host.strip("[]").rstrip(".").casefold()
    if name == "localhost" or name.endswith(".localhost"):
        return False
    with suppress(ValueError):
        return is_public(str(ipaddress.ip_address(name)))
    with suppress(ValueError, OSError):
        return is_public(socket.inet_ntoa(socket.inet_aton(name)))
    return True


def local_hosts() -> frozenset[str]:
    """Return the hosts that may be called although they are not public, and without TLS; with a port or for all ports.

    Only the local stack sets the environment variable LOCAL_HOSTS. template.yaml does not name it, hence a function
    on AWS has none.
    """
    return frozenset(filter(None, os.environ.get("LOCAL_HOSTS", "").split(",")))


class _PublicConnection(Cuttable, HTTPSConnection):
    @override
    def _new_conn(self) -> socket.socket:
        found = socket.getaddrinfo(self.host.strip("[]"), self.port, type=socket.SOCK_STREAM)
        addresses = dict.fromkeys(str(where[0]) for *_, where in found)
        if not all(map(is_public, addresses)):
            raise NotPublicError
        failed = OSError("it has no address")
        for address in addresses:
            check()  # a name may have any number of addresses
            try:
                made = create_connection((address, self.port), self.timeout, self.source_address, self.socket_options)
            except OSError as error:
                failed = error
            else:
                return used(made)
        raise failed


class _PublicPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _PublicConnection


class PublicAdapter(CuttableAdapter):
    pools = {"https": _PublicPool}  # noqa: RUF012

"""HTTP to URLs that tenants name, without letting them reach into our network (SSRF).

The check sits where the connection is made: the name is resolved once, *every* address it has must be a public one,
and the connection goes to an address that was judged, so a name server that answers differently a second time gains
nothing. httpcore follows no redirects and takes no proxy from the environment.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

import httpcore

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address
# Metadata services at addresses that Python takes for public ones: Oracle's (RFC 6890 has that network special, and
# Python 3.11 knows parts of it only) and Azure's.
METADATA = (ipaddress.IPv4Network("192.0.0.0/24"), ipaddress.IPv4Network("168.63.129.16/32"))
GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")  # RFC 4291: all else is local, special or not given out


class AddressRefused(httpcore.ConnectError):
    """The host has an address that is not a public one."""


class PublicNetwork(httpcore.AsyncNetworkBackend):
    """Connects to public addresses only."""

    def __init__(self) -> None:
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        failure: Exception = AddressRefused("no address")
        for address in await public_addresses(host, port):
            try:
                return await self._network.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def sleep(self, seconds: float) -> None:
        await self._network.sleep(seconds)


async def public_addresses(host: str, port: int) -> list[str]:
    """All addresses of the host. Raises AddressRefused when one of them is not public, or none is found."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise AddressRefused("the name does not resolve") from None
    addresses = list(dict.fromkeys(str(info[4][0]) for info in found))
    if not addresses or not all(is_public(address) for address in addresses):
        raise AddressRefused("not a public address")
    return addresses


def is_public(address: str) -> bool:
    """Whether a packet to the address leaves for the Internet, whatever IPv4 address is wrapped in it."""
    if "%" in address:
        return False  # scoped: link-local
    ip = _unwrapped(ipaddress.ip_address(address))
    if ip.version == 6 and ip not in GLOBAL_UNICAST:
        return False
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in METADATA)


def _unwrapped(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if ip in NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or ip


def is_webhook_url(url: str) -> bool:
    """Whether the text is a plain http or https URL: ASCII, with a host, without a user name or password."""
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        return False
    try:
        parts = urlsplit(url)
        return (
            parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and "@" not in parts.netloc
        )
    except ValueError:  # a port or an IPv6 literal that is none
        return False

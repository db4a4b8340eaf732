"""Protection against server-side request forgery (SSRF) in HTTP requests to URLs that tenants choose.

The check is made at connection time: the name is resolved once, *every* one of its addresses must be public, and the
connection is made to one of the addresses that were checked. A name server that responds differently a second time
therefore gains nothing. httpcore follows no redirects and uses no proxy from the environment.
"""

import asyncio
import ipaddress
import itertools
import socket
import threading
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpcore

LOOKUP_THREADS = 64
LOOKUP_SHARE_OF_FREE = 4
CONNECT_TRY_S = 1.0
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address
# Metadata services at addresses that Python considers public: Oracle's (RFC 6890 reserves the network, of which Python
# 3.11 knows only parts) and Azure's.
METADATA = (ipaddress.IPv4Network("192.0.0.0/24"), ipaddress.IPv4Network("168.63.129.16/32"))
GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")  # RFC 4291: all other addresses are local, special or unassigned


class AddressRefused(httpcore.ConnectError):
    """The host has an address that is not public."""


class LookupsBusy(httpcore.ConnectError):
    """The owner has reached its limit of DNS lookups in progress: name servers that hang delay their own owner only."""


class Lookups:
    """DNS lookups in threads, with a limit for each owner.

    `getaddrinfo` cannot be cancelled: when a name server does not respond, the thread is occupied for ten seconds or
    more, whatever the deadline of the caller. A lookup therefore counts until its thread has finished, and an owner
    gets at most a quarter of the free threads, so that there is always a thread for another owner.
    """

    def __init__(self, threads: int = LOOKUP_THREADS) -> None:
        self._threads = threads
        self._executor = ThreadPoolExecutor(threads, "webhook lookup")
        self._counting = threading.Lock()
        self._by_owner: Counter[int] = Counter()

    async def addresses(self, owner: int, host: str, port: int) -> list[str]:
        """All addresses of the host, alternating between IPv6 and IPv4. Raises LookupsBusy, and AddressRefused for an
        unknown name."""
        self._begin(owner)
        lookup = self._executor.submit(socket.getaddrinfo, host.strip("[]"), port, type=socket.SOCK_STREAM)
        lookup.add_done_callback(lambda _: self._end(owner))
        try:
            found = await asyncio.wrap_future(lookup)
        except (OSError, UnicodeError):
            raise AddressRefused("the name does not resolve") from None
        return _alternating(list(dict.fromkeys(str(info[4][0]) for info in found)))

    def _begin(self, owner: int) -> None:
        with self._counting:
            free = self._threads - self._by_owner.total()
            if self._by_owner[owner] >= max(1, free // LOOKUP_SHARE_OF_FREE) or not free:
                raise LookupsBusy
            self._by_owner[owner] += 1

    def _end(self, owner: int) -> None:
        with self._counting:
            self._by_owner[owner] -= 1
            if not self._by_owner[owner]:
                del self._by_owner[owner]


lookups = Lookups()


def _alternating(addresses: list[str]) -> list[str]:
    """Alternates between the address families, starting with that of the first address (RFC 8305, section 4)."""
    first = [address for address in addresses if (":" in address) == (":" in addresses[0])]
    second = [address for address in addresses if address not in first]
    return [address for pair in itertools.zip_longest(first, second) for address in pair if address]


class GuardedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to public addresses, or to any address if `allow_private`, on behalf of one owner."""

    def __init__(self, *, owner: int, allow_private: bool = False) -> None:
        self._network = httpcore.AnyIOBackend()
        self._owner = owner
        self._allow_private = allow_private

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        addresses = await lookups.addresses(self._owner, host, port)
        if not addresses or not (self._allow_private or all(is_public(address) for address in addresses)):
            found = ", ".join(address for address in addresses if not is_public(address)) or "none"
            raise AddressRefused(f"not a public address: {found}")
        failure: Exception = AddressRefused("no address")
        for index, address in enumerate(addresses):
            # One address must not use up the deadline: the host's IPv6 address may be unreachable.
            is_last = index == len(addresses) - 1
            limit = timeout if is_last else min(timeout or CONNECT_TRY_S, CONNECT_TRY_S)
            try:
                return await self._network.connect_tcp(address, port, limit, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def sleep(self, seconds: float) -> None:
        await self._network.sleep(seconds)


def is_public(address: str) -> bool:
    """Whether the address belongs to the public Internet, also after unwrapping an embedded IPv4 address."""
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


def is_private_url(url: str) -> bool:
    """Whether the URL's host can only be this machine or a private network: `localhost`, or an address that is not
    public, in any notation that a resolver accepts (127.1, 0x7f000001, 2130706433). Other names are checked at
    connection time, because the addresses of a name can change."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = str(ipaddress.ip_address(host))
    except ValueError:
        try:
            address = socket.inet_ntoa(socket.inet_aton(host))
        except (OSError, UnicodeError):
            return False
    return not is_public(address)


def is_webhook_url(url: str) -> bool:
    """Whether the text is a plain http or https URL: ASCII, with a host, without a user name or password."""
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        return False
    try:
        parts = urlsplit(url)
        return (
            parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and "@" not in parts.netloc
        )
    except ValueError:  # an invalid port or IPv6 literal
        return False

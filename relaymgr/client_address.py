"""Whose address a request came from, behind the proxies we trust (compat spec R60)."""

import ipaddress

from django.conf import settings
from django.http import HttpRequest

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def client_address(request: HttpRequest) -> str:
    """The nearest address that is not a trusted proxy's; what the client itself wrote in X-Forwarded-For never counts.

    IPv4 in its own form, also when the socket was IPv6. Empty when the server knows none (a UNIX socket without proxy).
    """
    address = _parse(request.META.get("REMOTE_ADDR", ""))
    for hop in reversed(request.headers.get("X-Forwarded-For", "").split(",")):
        if address is not None and not _is_trusted(address):
            break
        nearer = _parse(hop)
        if nearer is None:
            break
        address = nearer
    return str(address or "")


def _is_trusted(address: IPAddress) -> bool:
    return any(address in network for network in settings.TRUSTED_PROXIES)


def _parse(text: str) -> IPAddress | None:
    try:
        address = ipaddress.ip_address(text.strip())
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address

"""IPv4 and IPv6: which of them a node has, and which one a player needs."""

import ipaddress
from collections.abc import Iterable

IPV4, IPV6 = "ipv4", "ipv6"
ANY = "any"  # requested for a player who has both
SHOWN = {IPV4: "IPv4", IPV6: "IPv6"}


def family_of(address: str) -> str:
    """`ipv4` or `ipv6`; an IPv4 address written as IPv6 is IPv4. Empty for no address."""
    if not address:
        return ""
    ip = ipaddress.ip_address(address)
    return IPV4 if ip.version == 4 or getattr(ip, "ipv4_mapped", None) else IPV6


def needed_family(asked: str, address: str | None) -> str:
    """The one family in which a player reaches a relay. Empty: either, or it is not known.

    asked: what the request said, `ipv4`, `ipv6`, `any` or nothing; then the family of the player's own address counts.
    """
    return asked.replace(ANY, "") if asked else family_of(address or "")


def by_family(*addresses: str | None) -> dict[str, str]:
    """{family: address}, the first of each."""
    found: dict[str, str] = {}
    for address in addresses:
        if address:
            found.setdefault(family_of(address), address)
    return found


def common_address(addresses: dict[str, str], default: str, needed: Iterable[str]) -> str:
    """The address that all players of a group reach, where there is one; else the default.

    needed: of each player, as `needed_family` gives it."""
    families = set(needed) - {""}
    return addresses.get(families.pop(), default) if len(families) == 1 else default


def addresses_for(addresses: dict[str, str], common: str, needed: str) -> list[str]:
    """The addresses that one player tries, in this order."""
    if needed in addresses:
        return [addresses[needed]]
    return [common, *(address for address in addresses.values() if address != common)]


def bracketed(host: str) -> str:
    """As it stands before a port: IPv6 literals in brackets (RFC 3986)."""
    return f"[{host}]" if ":" in host else host

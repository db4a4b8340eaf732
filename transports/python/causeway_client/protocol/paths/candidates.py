"""Which addresses a player offers to a peer, and to which of the peer's it may send probes (PROTOCOL.md 12.2, 12.4)."""

import ipaddress
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from .rendezvous import MAX_CANDIDATES, Candidate, CandidateKind
from .reports import PathKind

IpPort = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Target:
    """An address of a peer that may be probed."""

    ip: str
    port: int
    kind: PathKind


def offered(hosts: Iterable[IpPort], mapped: Iterable[IpPort]) -> tuple[Candidate, ...]:
    """The candidates of a player, without duplicates. `hosts`: the addresses of its sockets; `mapped`: those that a
    router has mapped to them. The server-reflexive one is added by the node."""
    kinds = ((CandidateKind.HOST, hosts), (CandidateKind.PORT_MAPPED, mapped))
    found: dict[IpPort, Candidate] = {}
    for kind, addresses in kinds:
        for ip, port in addresses:
            if _is_sendable(ip, port) and not (kind is CandidateKind.HOST and _is_loopback(ip)):
                found.setdefault((ip, port), Candidate(kind, ip, port))
    return tuple(found.values())[:MAX_CANDIDATES]


def targets(
    candidates: Sequence[Candidate], observed: Sequence[IpPort], own_observed: Sequence[IpPort]
) -> tuple[Target, ...]:
    """The addresses of a peer that may be probed, in the order in which they are: local ones, IPv6, IPv4, mapped ports.
    `observed`: where the node sees the peer; `own_observed`: where servers see this player."""
    is_same_network = any(_is_same_site(theirs, own) for theirs, _ in observed for own, _ in own_observed)
    local: list[Target] = []
    ipv6: list[Target] = []
    ipv4: list[Target] = []
    mapped: list[Target] = []
    for candidate in candidates:
        where = candidate.ip, candidate.port
        if not _is_sendable(*where):
            continue
        if candidate.kind is CandidateKind.PORT_MAPPED:
            if any(candidate.ip == ip for ip, _ in observed):
                mapped.append(Target(*where, PathKind.PORT_MAPPED))
        elif is_local(candidate.ip):
            if is_same_network and candidate.kind is CandidateKind.HOST:
                local.append(Target(*where, PathKind.LOCAL_NETWORK))
        elif ":" in candidate.ip and any(_is_same_site(candidate.ip, ip) for ip, _ in observed):
            ipv6.append(Target(*where, PathKind.IPV6))
    for ip, port in observed:
        if not _is_sendable(ip, port):
            continue
        kind = PathKind.IPV6 if ":" in ip else PathKind.IPV4
        (ipv6 if ":" in ip else ipv4).append(Target(ip, port, PathKind.LOCAL_NETWORK if is_local(ip) else kind))
    unique: dict[IpPort, Target] = {}
    for target in (*local, *ipv6, *ipv4, *mapped):
        unique.setdefault((target.ip, target.port), target)
    return tuple(unique.values())


def reachable_first(
    hosts: Iterable[IpPort], node: Hashable, second: Hashable | None
) -> tuple[Hashable, Hashable | None]:
    """The two addresses of a node, the second one first if all of this player's (`hosts`) are of its family."""
    own = {":" in ip for ip, _ in hosts}
    if isinstance(node, tuple) and isinstance(second, tuple) and own == {":" in second[0]}:
        return second, node[:2]
    return node, second


def is_local(ip: str) -> bool:
    """A private or link-local address: no other network reaches it (RFC 1918, RFC 3927, RFC 4193, RFC 4291)."""
    address = ipaddress.ip_address(ip)
    networks = (network for network in _PRIVATE if network.version == address.version)
    return address.is_link_local or any(address in network for network in networks)


_PRIVATE = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")))


def _is_sendable(ip: str, port: int) -> bool:
    address = ipaddress.ip_address(ip)
    return port > 0 and not (address.is_multicast or address.is_unspecified or ip == "255.255.255.255")


def _is_loopback(ip: str) -> bool:
    return ipaddress.ip_address(ip).is_loopback


def _is_same_site(one: str, other: str) -> bool:
    """The same IPv4 address, or the same IPv6 /64."""
    if ":" not in one:
        return one == other
    return ":" in other and ipaddress.ip_address(one).packed[:8] == ipaddress.ip_address(other).packed[:8]

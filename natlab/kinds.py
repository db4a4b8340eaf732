"""Kinds of NAT as rules of nftables: which outer port a socket is mapped to, and which packets are let in (RFC 4787,
sections 4 and 5)."""

from dataclasses import dataclass
from enum import Enum

WAN = "wan"  # the outer interface of every router; all others are inner ones
_FIRST_SEQUENTIAL, _SEQUENTIAL = 40_000, 4_000
_SET_SIZE = 65_536


class Mapping(Enum):
    ENDPOINT_INDEPENDENT = "the same outer port towards all addresses"
    PRESERVING = "the inner port, unless another host uses it towards the same address"
    RANDOM = "a random outer port for each address and port"
    SEQUENTIAL = "the next outer port for each address and port"


class Filter(Enum):
    ENDPOINT_INDEPENDENT = "any address may send to a mapped port"
    ADDRESS_DEPENDENT = "only addresses to which the mapped socket has sent"
    ADDRESS_AND_PORT_DEPENDENT = "only addresses and ports to which the mapped socket has sent"


@dataclass(frozen=True)
class NatKind:
    name: str
    title: str
    mapping: Mapping
    filter: Filter

    @property
    def is_symmetric(self) -> bool:
        return self.mapping in (Mapping.RANDOM, Mapping.SEQUENTIAL)


FULL_CONE = NatKind("full-cone", "full cone", Mapping.ENDPOINT_INDEPENDENT, Filter.ENDPOINT_INDEPENDENT)
ADDRESS_RESTRICTED = NatKind(
    "address-restricted", "address-restricted", Mapping.ENDPOINT_INDEPENDENT, Filter.ADDRESS_DEPENDENT
)
PORT_RESTRICTED = NatKind(
    "port-restricted", "port-restricted", Mapping.ENDPOINT_INDEPENDENT, Filter.ADDRESS_AND_PORT_DEPENDENT
)
PLAIN_LINUX = NatKind("plain-linux", "plain Linux", Mapping.PRESERVING, Filter.ADDRESS_AND_PORT_DEPENDENT)
SEQUENTIAL = NatKind(
    "symmetric-sequential", "symmetric, sequential", Mapping.SEQUENTIAL, Filter.ADDRESS_AND_PORT_DEPENDENT
)
RANDOM = NatKind("symmetric-random", "symmetric, random", Mapping.RANDOM, Filter.ADDRESS_AND_PORT_DEPENDENT)

KINDS = (FULL_CONE, ADDRESS_RESTRICTED, PORT_RESTRICTED, PLAIN_LINUX, SEQUENTIAL, RANDOM)


def can_punch(one: NatKind, other: NatKind) -> bool:
    """Whether plain hole punching succeeds: not if one side's next port is unknown and the other filters by port."""
    return not any(
        a.is_symmetric and b.filter is Filter.ADDRESS_AND_PORT_DEPENDENT for a, b in ((one, other), (other, one))
    )


def translation(kind: NatKind, address: str, *, lifetime: int, hairpin: bool) -> str:
    """The rules for a router with this outer IPv4 address. `lifetime`: seconds of an unused mapping. `hairpin`: inner
    hosts reach each other through mapped ports of the outer address. Raises ValueError for it with a kind that does not
    map independently of the endpoint.

    The router itself drops unsolicited UDP. If it accepted a packet that arrives before the inner host has sent,
    conntrack would keep the packet's tuple, give the inner host another port, and so break hole punching.

    Kinds with other than endpoint-independent mappings let in what is sent to a port that a port mapping protocol has
    opened: nothing else translates the destination of a new connection there.
    """
    if hairpin and kind.mapping is not Mapping.ENDPOINT_INDEPENDENT:
        raise ValueError(f"{kind.title} cannot hairpin")
    is_independent = kind.mapping is Mapping.ENDPOINT_INDEPENDENT
    dnat = f"ip daddr {address} meta l4proto udp dnat to udp dport map @mapped"
    source = {
        Mapping.ENDPOINT_INDEPENDENT: f"meta l4proto udp snat to {address}",
        Mapping.PRESERVING: "",
        Mapping.RANDOM: "meta l4proto udp masquerade fully-random",
        Mapping.SEQUENTIAL: f"meta l4proto udp snat to {address} : numgen inc mod {_SEQUENTIAL} map {_ports()}",
    }[kind.mapping]
    return f"""
table ip nat {{
    map mapped {{
        type inet_service : ipv4_addr . inet_service
        size {_SET_SIZE}
        flags dynamic,timeout
    }}
    set permitted {{
        type ipv4_addr . inet_service . ipv4_addr
        size {_SET_SIZE}
        flags dynamic,timeout
    }}
    chain prerouting {{
        type nat hook prerouting priority dstnat
        {dnat if is_independent and hairpin else f'iifname "{WAN}" {dnat}' if is_independent else ""}
    }}
    chain forward {{
        type filter hook forward priority filter
        iifname "{WAN}" ct state new ct status dnat jump inbound
        iifname "{WAN}" ct state new drop
    }}
    chain inbound {{
        {_admission(kind) if is_independent else "accept"}
    }}
    chain input {{
        type filter hook input priority filter
        ip daddr {address} meta l4proto udp ct state new drop
    }}
    chain remember {{
        type filter hook postrouting priority srcnat - 5
        {_remembering(lifetime, hairpin) if is_independent else ""}
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat
        oifname "{WAN}" {source}
        oifname "{WAN}" masquerade
        {f'iifname != "{WAN}" oifname != "{WAN}" ct status dnat {source}' if hairpin else ""}
    }}
}}
"""


def firewall(*, blocks_udp: bool) -> str:
    """The rules for what a router does not translate, IPv6 in particular: only answers come in. `blocks_udp`: no UDP
    passes at all."""
    return f"""
table inet firewall {{
    chain forward {{
        type filter hook forward priority filter
        {"meta l4proto udp drop" if blocks_udp else ""}
        meta nfproto ipv6 iifname "{WAN}" ct state new drop
    }}
}}
"""


def flush() -> str:
    """Commands that make a router forget its mappings; those of conntrack are forgotten apart."""
    return "flush map ip nat mapped; flush set ip nat permitted"


def _admission(kind: NatKind) -> str:
    if kind.filter is Filter.ENDPOINT_INDEPENDENT:
        return "accept"
    if kind.filter is Filter.ADDRESS_DEPENDENT:
        return "ip daddr . udp dport . ip saddr @permitted accept; drop"
    return "drop"


def _remembering(lifetime: int, hairpin: bool) -> str:
    outward = f'iifname != "{WAN}"' if hairpin else f'oifname "{WAN}"'
    return f"""
        {outward} meta l4proto udp update @mapped {{ udp sport timeout {lifetime}s : ip saddr . udp sport }}
        {outward} meta l4proto udp update @permitted {{ ip saddr . udp sport . ip daddr timeout {lifetime}s }}
"""


def _ports() -> str:
    # With `offset` instead of a map, nft writes the ports in the wrong byte order.
    ports = (f"{index} : {_FIRST_SEQUENTIAL + index}" for index in range(_SEQUENTIAL))
    return f"{{ {', '.join(ports)} }}"

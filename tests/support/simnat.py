"""What a simulated NAT does: which port it maps a socket to, and whom it lets in (RFC 4787, sections 4 and 5)."""

from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import Any, NamedTuple

Address = tuple[str, int]
LOWEST_PORT, HIGHEST_PORT = 1024, 65_535


class Behaviour(Enum):
    """What a mapping or a filter depends on (RFC 4787, sections 4.1 and 5)."""

    ENDPOINT_INDEPENDENT = 0
    ADDRESS_DEPENDENT = 1
    ADDRESS_AND_PORT_DEPENDENT = 2

    def key(self, other: Address) -> tuple[Any, ...]:
        return other[: self.value]


class Ports(Enum):
    """Which port a new mapping gets."""

    RANDOM = 0
    PRESERVED = 1  # the same as inside if it is free, otherwise a random one
    SEQUENTIAL = 2  # the one after the last


class NatKind(NamedTuple):
    mapping: Behaviour
    filtering: Behaviour
    ports: Ports = Ports.RANDOM


FULL_CONE = NatKind(Behaviour.ENDPOINT_INDEPENDENT, Behaviour.ENDPOINT_INDEPENDENT)
ADDRESS_RESTRICTED = NatKind(Behaviour.ENDPOINT_INDEPENDENT, Behaviour.ADDRESS_DEPENDENT)
PORT_RESTRICTED = NatKind(Behaviour.ENDPOINT_INDEPENDENT, Behaviour.ADDRESS_AND_PORT_DEPENDENT)
PLAIN_LINUX = PORT_RESTRICTED._replace(ports=Ports.PRESERVED)
SYMMETRIC = NatKind(Behaviour.ADDRESS_AND_PORT_DEPENDENT, Behaviour.ADDRESS_AND_PORT_DEPENDENT)
SYMMETRIC_SEQUENTIAL = SYMMETRIC._replace(ports=Ports.SEQUENTIAL)


@dataclass(slots=True)
class _Mapping:
    inside: Address
    port: int
    used_at: float
    permitted: set[tuple[Any, ...]]


class Mappings:
    """The mappings of a NAT whose outer address is `ip`."""

    def __init__(self, ip: str, kind: NatKind, lifetime: float, random: Random) -> None:
        self._ip = ip
        self._kind = kind
        self._lifetime = lifetime
        self._random = random
        self._last = random.randint(LOWEST_PORT, HIGHEST_PORT)
        self._by_key: dict[tuple[Any, ...], _Mapping] = {}
        self._by_port: dict[int, _Mapping] = {}

    def clear(self) -> None:
        self._by_key.clear()
        self._by_port.clear()

    def outbound(self, source: Address, destination: Address, now: float) -> Address:
        """The source of the packet outside."""
        key = (source, self._kind.mapping.key(destination))
        mapping = self._by_key.get(key)
        if mapping is None or self._at(mapping.port, now) is not mapping:
            port = self._new_port(source[1], now)
            mapping = self._by_key[key] = self._by_port[port] = _Mapping(source, port, now, set())
        mapping.used_at = now
        mapping.permitted.add(self._kind.filtering.key(destination))
        return self._ip, mapping.port

    def inbound(self, source: Address, destination: Address, now: float) -> Address | None:
        """The destination of the packet inside; None: it is dropped."""
        mapping = self._at(destination[1], now)
        if mapping is None or self._kind.filtering.key(source) not in mapping.permitted:
            return None
        return mapping.inside

    def _new_port(self, inside: int, now: float) -> int:
        port = inside
        if self._kind.ports is not Ports.PRESERVED:
            port = self._next_port()
        while self._at(port, now) is not None:
            port = self._next_port()
        return port

    def _next_port(self) -> int:
        if self._kind.ports is Ports.SEQUENTIAL:
            self._last = self._last + 1 if self._last < HIGHEST_PORT else LOWEST_PORT
            return self._last
        return self._random.randint(LOWEST_PORT, HIGHEST_PORT)

    def _at(self, port: int, now: float) -> _Mapping | None:
        """The mapping of an outer port, unless it has expired."""
        mapping = self._by_port.get(port)
        return mapping if mapping is not None and now - mapping.used_at <= self._lifetime else None

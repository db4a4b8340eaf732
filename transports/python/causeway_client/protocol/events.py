"""The events that the machines report. A payload is not an event: the machines return it from `receive_datagram`."""

from collections.abc import Hashable
from dataclasses import dataclass

from .errors import ConnectionFailed


@dataclass(frozen=True, slots=True)
class Event:
    """The base class of all events."""


@dataclass(frozen=True, slots=True)
class ConnectStarted(Event):
    """The first CONNECT was sent."""


@dataclass(frozen=True, slots=True)
class Welcomed(Event):
    """Connected, for the first time or again. `address` is this player's address as the node sees it; `peers` are the
    other connected seats. Limits are per second, and 0 means none."""

    seat: int
    mesh: bool
    address: tuple[str, int]
    peers: frozenset[int]
    max_payload: int
    packets_per_second: int
    bytes_per_second: int


@dataclass(frozen=True, slots=True)
class ReconnectStarted(Event):
    """The node does not answer; the connection reconnects with the same token."""


@dataclass(frozen=True, slots=True)
class Closed(Event):
    """The connection has ended; no event follows. `error` is None if the game closed it."""

    error: ConnectionFailed | None


@dataclass(frozen=True, slots=True)
class Joined(Event):
    """The player of `seat` connected."""

    seat: int


@dataclass(frozen=True, slots=True)
class Left(Event):
    """The player of `seat` closed, timed out or was removed."""

    seat: int
    reason: str


OLD_SOCKET_GRACE = 1.0  # seconds after Moved in which packets to the old address may still arrive


@dataclass(frozen=True, slots=True)
class Moved(Event):
    """The node verified this player's new address, and sends packets there."""

    address: tuple[str, int]


@dataclass(frozen=True, slots=True)
class OverQuota(Event):
    """Packets of this player were dropped by a limit. Reported at most once per second."""

    reason: str


@dataclass(frozen=True, slots=True)
class Draining(Event):
    """The node is about to stop: the session needs another relay."""

    reason: str


@dataclass(frozen=True, slots=True)
class Signaled(Event):
    """A SIGNAL from `seat`; the node does not interpret it."""

    seat: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class DirectPathRequested(Event):
    """Once for each seat, in direct mode "ask": may the player of `seat` learn this player's address, so that packets
    take a direct path? The game answers with `allow_direct(seat)`, or not at all."""

    seat: int


@dataclass(frozen=True, slots=True)
class PathChanged(Event):
    """Packets to `seat` take another path from now on: "relay", "local_network", "ipv4", "ipv6" or "port_mapped".
    `reason`: "first_path", "better", "path_failed", "not_permitted", "only_small_packets", "recovered"."""

    seat: int
    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class StandbyReady(Event):
    """There is a leg to a second relay, at `relay`, to which this player can change."""

    relay: Hashable


@dataclass(frozen=True, slots=True)
class StandbyLost(Event):
    """The leg to the second relay has ended; the session goes on without one."""

    relay: Hashable
    reason: str


@dataclass(frozen=True, slots=True)
class RelayChanged(Event):
    """This player sends to another relay from now on. `reason`: "planned", "silent", "refused", "ended" or "epoch".
    `gap_ms`: milliseconds between the last packet on the old leg and the first payload on the new one; if there was
    none within a second, until the change."""

    previous: Hashable
    current: Hashable
    reason: str
    gap_ms: int


@dataclass(frozen=True, slots=True)
class ExtraSockets(Event):
    """For adapters, which do not pass it to the game: the further IPv4 sockets with these numbers should be open, for
    hole punching, and no others. In addresses they are (ip, port, number)."""

    numbers: range | frozenset[int]


@dataclass(frozen=True, slots=True)
class Received(Event):
    """A payload from `seat`, in adapters that return everything in one list."""

    seat: int
    payload: bytes

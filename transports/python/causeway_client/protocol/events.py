"""What the machines report: small, frozen, in the past tense. A game's payload is not an event; the
machines return it from `receive_datagram`."""

from dataclasses import dataclass

from .errors import ConnectionFailed


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events."""


@dataclass(frozen=True, slots=True)
class ConnectStarted(Event):
    """The first CONNECT is on its way."""


@dataclass(frozen=True, slots=True)
class Welcomed(Event):
    """Connected, for the first time or again. `address` is this player's as the node sees it; `peers` are the
    other seats connected now; limits are a second's worth, 0: none."""

    seat: int
    mesh: bool
    address: tuple[str, int]
    peers: frozenset[int]
    max_payload: int
    packets_per_second: int
    bytes_per_second: int


@dataclass(frozen=True, slots=True)
class ReconnectStarted(Event):
    """Nothing heard from the node; reconnecting with the same token."""


@dataclass(frozen=True, slots=True)
class Closed(Event):
    """The connection is over; no event follows. `error` is None when the game closed it."""

    error: ConnectionFailed | None


@dataclass(frozen=True, slots=True)
class Joined(Event):
    """The player of `seat` connected."""

    seat: int


@dataclass(frozen=True, slots=True)
class Left(Event):
    """The player of `seat` closed, fell silent or was revoked."""

    seat: int
    reason: str


OLD_SOCKET_GRACE = 1.0  # seconds after Moved in which packets may still arrive where the player was before


@dataclass(frozen=True, slots=True)
class Moved(Event):
    """The node proved this player's new address; packets are sent there from now on."""

    address: tuple[str, int]


@dataclass(frozen=True, slots=True)
class OverQuota(Event):
    """Packets of ours were dropped by a limit. Told at most once a second."""

    reason: str


@dataclass(frozen=True, slots=True)
class Draining(Event):
    """The node is closing down: ask the manager for another relay."""

    reason: str


@dataclass(frozen=True, slots=True)
class Signaled(Event):
    """A SIGNAL from `seat`: opaque, for the direct-path upgrade."""

    seat: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Received(Event):
    """A payload from `seat`, for adapters that hand out everything in one list."""

    seat: int
    payload: bytes

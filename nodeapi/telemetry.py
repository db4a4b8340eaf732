"""Telemetry: what a node reports about itself, its legs and its sessions' events, as the answer to GET /telemetry.

The receiver does not trust the sender. It reads the frame (`Telemetry`) as a whole, and each leg, peer, event and exit
separately: a newer node may report some that the receiver does not know.
"""

from typing import Annotated, Any

from msgspec import Meta, Struct

from causeway_client.protocol.packets import MAX_SEATS

from .grants import MAX_WORKERS
from .ids import SessionId

MAX_LEGS, MAX_EVENTS, MAX_PATHS = 2_000, 10_000, 2_000  # of one answer
MAX_WORKER_EXITS = 20
MAX_COUNTERS = 200  # different names
MAX_COUNT, MAX_BIG = 2**31 - 1, 2**63 - 1
MAX_TIME = 32_503_680_000.0  # the year 3000
EVENT_KINDS = frozenset({"seat_joined", "seat_left", "seat_moved", "session_ended", "relay_changed"})
# PROTOCOL.md 12.9, by number.
PATHS = ("relay", "local_network", "ipv4", "ipv6", "port_mapped")
PATH_REASONS = (
    "none",
    "first_path",
    "better",
    "path_failed",
    "peer_left",
    "not_permitted",
    "no_direct_path",
    "only_small_packets",
    "recovered",
)
WORD_PATTERN = r"\A[a-z0-9_]{1,30}\Z"

Count = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
Big = Annotated[int, Meta(ge=0, le=MAX_BIG)]
SeatNumber = Annotated[int, Meta(ge=0, lt=MAX_SEATS)]
Time = Annotated[float, Meta(ge=0, le=MAX_TIME)]  # seconds since 1970
Milliseconds = Annotated[float, Meta(ge=0, le=1e6)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Cores = Annotated[float, Meta(ge=0, le=1e6)]
Word = Annotated[str, Meta(pattern=WORD_PATTERN)]


class LegQuality(Struct, gc=False):
    """The connection between one player and the node."""

    session: SessionId
    seat: SeatNumber
    prefix: Annotated[str, Meta(max_length=43)]  # of the player's address; empty: not known
    rtt_ms: Milliseconds | None  # None: the dialect cannot measure it
    jitter_ms: Milliseconds
    loss: Fraction
    player: Annotated[str, Meta(pattern=r"\A(|[0-9a-f]{8})\Z")] = ""  # a keyed hash of the player's address
    dialect: str = ""


class PathQuality(Struct, gc=False):
    """The path on which a player sends to another one, as the player reports it. Round trips are end to end."""

    session: SessionId
    seat: SeatNumber
    peer: SeatNumber
    path: str  # one of PATHS
    reason: str  # one of PATH_REASONS: why the player uses this path
    rtt_ms: Milliseconds | None  # None: not measured
    relay_rtt_ms: Milliseconds | None
    loss: Fraction
    packets: Count  # sent on direct paths since the last answer
    bytes: Count  # the same, in UDP payload


class PeerQuality(Struct, gc=False):
    """The path from the node to another node."""

    node: Annotated[str, Meta(min_length=1)]
    rtt_ms: Milliseconds
    jitter_ms: Milliseconds
    loss: Fraction  # of small packets
    loss_large: Fraction
    age_s: float = 0.0  # since the last answer


class SessionEvent(Struct, gc=False):
    """Something that happened to a session, or to one seat of it."""

    number: Big
    at: Time
    session: SessionId
    seat: SeatNumber | None  # None: the whole session
    kind: Word
    dialect: str
    reason: str
    gap_ms: Count = 0  # relay_changed: since the last packet on the leg before


class WorkerExit(Struct, gc=False):
    """A worker process that ended unexpectedly and was replaced."""

    worker: Annotated[int, Meta(ge=0, lt=MAX_WORKERS)]
    number: Big  # counts the exits since the node started
    age_s: Annotated[float, Meta(ge=0, le=86_400)]  # by the node's monotonic clock
    status: Annotated[int, Meta(ge=-(2**31), le=MAX_COUNT)] | None  # negative: a signal; None: it could not be started
    uptime_s: Annotated[float, Meta(ge=0, le=1e9)]


class WorkerStats(Struct, gc=False):
    sessions: Count
    seats: Count
    connected: Count
    counters: Annotated[dict[str, Big], Meta(max_length=MAX_COUNTERS)]
    index: int = 0
    server_port: int = 0
    client_port: int = 0
    cpu: float = 0.0  # share of a core since the last call
    receive_buffer: int = 0  # bytes


class WebSocketStats(Struct, gc=False):
    """Players whose network blocks UDP."""

    connections: Count
    accepted: Big  # since its process started
    restarts: Count  # of its process, since the node started
    certificate_expires_at: Time = 0.0  # 0: it has no certificate


class Telemetry(Struct):
    """The lists of a node hold the structs above, or dictionaries of the same fields."""

    boot_id: Annotated[str, Meta(min_length=1)]
    time: Time
    cpu: Cores
    workers: Annotated[list[WorkerStats], Meta(max_length=MAX_WORKERS)]
    legs: Annotated[list[Any], Meta(max_length=MAX_LEGS)]
    events: Annotated[list[Any], Meta(max_length=MAX_EVENTS)]
    last_event: Big
    uptime: float = 0.0  # seconds
    version: str | None = None
    draining: bool = False
    packet_path: str | None = None
    packet_path_reason: str | None = None
    peers_version: str | None = None
    peers: list[Any] = []
    worker_exits: list[Any] = []
    paths: Annotated[list[Any], Meta(max_length=MAX_PATHS)] = []
    websocket: WebSocketStats | None = None  # None: the node has no WebSocket port

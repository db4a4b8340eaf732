"""Sessions and their seats, and what another packet path mirrors of them."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from causeway_client.protocol.packets import DirectMode
from nodeapi.grants import DIRECT_MODES, Dialect, Grant, Limits, Role, SeatGrant

from . import limits
from .addresses import CLIENT_PORT, SERVER_PORT, Address
from .dialects.binding import Binding
from .dialects.edgegap_binding import EdgegapBinding
from .dialects.native_binding import NativeBinding
from .limits import Quota
from .two_relays.offers import PendingOffer

if TYPE_CHECKING:
    from .dialects.connection_ids import ConnectionIds

Random = Callable[[int], bytes]  # n -> n random bytes, as os.urandom

MOVE_INTERVAL = 1.0
"""Seconds between two moves of a seat. Each move is reported to the manager, and may look like a new player to an
edgegap host, so no player can flood them with moves."""


class Seat:
    """A player's place in a session. The player is connected while the seat has an address."""

    __slots__ = (
        "acknowledged_offer",
        "addr",
        "binding",
        "check_at",
        "connects_at",
        "direct_mode",
        "edgegap",
        "granted",
        "last_connect",
        "last_received",
        "limits",
        "moved_at",
        "number",
        "offer",
        "port",
        "quota",
        "revoked",
        "role_port",
        "session",
    )

    def __init__(
        self,
        session: "Session",
        number: int,
        limits: Limits,
        direct_mode: DirectMode,
        connection_ids: "ConnectionIds",
    ) -> None:
        self.session = session
        self.number = number
        self.direct_mode = direct_mode
        self.role_port = CLIENT_PORT if number else SERVER_PORT  # the port for this seat in the edgegap dialect
        self.granted = False  # False: admitted by its connect token
        self.revoked = False
        self.limits = limits
        self.quota = Quota(limits.packets, limits.bytes)
        self.addr: Address | None = None
        self.port = self.role_port  # the one of our ports that the player uses, and is answered from
        self.last_received = 0.0  # 0: never
        self.check_at = 0.0
        self.moved_at = 0.0  # when it last moved to another address
        self.connects_at = 0.0  # the token bucket of its CONNECTs (limits.bucket_after)
        self.last_connect = 0  # timestamp of the last CONNECT that was accepted
        self.offer: PendingOffer | None = None  # of another leg, which the player has not acknowledged yet
        self.acknowledged_offer = 0  # the id of the last one that it has
        self.edgegap = EdgegapBinding(self, connection_ids)
        self.binding: Binding = self.edgegap

    @property
    def effective_mode(self) -> DirectMode:
        """Its direct mode, of those that the session permits: beside edgegap players there are no direct paths."""
        return DirectMode.RELAY_ONLY if self.session.admits_edgegap else self.direct_mode

    def may_move(self, now: float) -> bool:
        """Whether the seat's last move was long enough ago for another one."""
        return now - self.moved_at >= MOVE_INTERVAL


class Session:
    __slots__ = (
        "admits_edgegap",
        "began",
        "by_connection_id",
        "check_at",
        "dialects",
        "direct_grace",
        "ended",
        "epoch",
        "expires_at",
        "idle_timeout",
        "limits",
        "mesh",
        "name",
        "quota",
        "revision",
        "role",
        "roster_announced",
        "roster_generation",
        "seats",
        "since",
        "token",
    )

    def __init__(self, name: str, roster_generation: int, now: float) -> None:
        self.name = name
        self.roster_generation = roster_generation  # 32 bits; changes with what NOTICE roster has
        self.roster_announced: int | None = None  # ticks since the first copy (Forwarder.announce_roster); None: ended
        self.began = self.since = now  # since: when it was last granted
        self.seats: dict[int, Seat] = {}
        self.by_connection_id: dict[int, Seat] = {}
        self.quota = Quota(0, 0)
        self.ended = False
        self.check_at = 0.0

    def take_terms(self, grant: Grant) -> None:
        """Everything in the grant except its seats."""
        self.revision = grant.revision
        self.token = grant.token
        self.mesh = grant.topology == "mesh"
        self.dialects: tuple[Dialect, ...] = grant.dialects
        self.admits_edgegap = "edgegap" in grant.dialects
        self.direct_grace = grant.direct_grace
        self.role: Role = grant.role
        self.epoch = grant.epoch
        self.idle_timeout = grant.idle_timeout
        self.expires_at = grant.expires_at
        self.limits = grant.limits
        self.quota.change(grant.limits.packets, grant.limits.bytes)

    def as_grant(self, worker: int) -> Grant:
        return Grant(
            session=self.name,
            revision=self.revision,
            worker=worker,
            token=self.token,
            topology="mesh" if self.mesh else "host",
            dialects=self.dialects,
            idle_timeout=self.idle_timeout,
            expires_at=self.expires_at,
            limits=self.limits,
            seats=tuple(
                SeatGrant(
                    seat.number,
                    seat.edgegap.token,
                    seat.revoked,
                    seat.limits,
                    DIRECT_MODES[seat.direct_mode],
                    seat.offer.document if seat.offer is not None else None,
                )
                for seat in self.seats.values()
            ),
            direct_grace=self.direct_grace,
            role=self.role,
            epoch=self.epoch,
        )

    def may_reach(self, source: Seat, target: Seat) -> bool:
        """Whether the topology allows DATA between two different seats, in either direction."""
        return self.mesh or source.number == 0 or target.number == 0


class Mirror:
    """What another packet path keeps of the table. This one keeps nothing: it is used when there is no other path.

    Another path forwards packets without the core's involvement. State that both change is therefore accessed through
    the mirror: quotas, the sequence numbers and windows of connections, and the time of a seat's last packet.
    """

    def seat_changed(self, seat: Seat) -> None:
        """When it returns, nothing is forwarded any more by what was true before."""

    def session_changed(self, session: Session) -> None:
        """The terms of the session and of its seats."""

    def session_removed(self, session: Session) -> None:
        """All of its seats are unbound."""

    def refresh(self, seat: Seat) -> None:
        """Update `last_received`, and clear the candidate address if the seat's own address sent packets meanwhile."""

    def make_native_binding(
        self, connection: int, seat: Seat, up_key: bytes, down_key: bytes, player_nonce: bytes, path_key: bytes
    ) -> NativeBinding:
        return NativeBinding(connection, seat, up_key, down_key, player_nonce, path_key)

    def skip_sent(self, binding: NativeBinding, sent: int) -> None:
        """The binding is a resumed one: its next packet has the sequence number `sent` + 1."""
        binding.sent = sent

    take = staticmethod(limits.take)

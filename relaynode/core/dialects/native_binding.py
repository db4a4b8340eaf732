"""A seat's binding in the native dialect: the node's end of the player's connection (PROTOCOL.md 4 and 7)."""

import struct
from typing import TYPE_CHECKING, ClassVar

from causeway_client.protocol.leg import Leg
from causeway_client.protocol.packets import Notice, PacketType, seal

from ..addresses import Address
from ..path_quality import NativeQuality
from .binding import Binding, DialectName, Quality

if TYPE_CHECKING:
    from ..seats import Seat

_COUNTS = struct.Struct("<QQ")
_DATA = int(PacketType.DATA)
_NOTICE = int(PacketType.NOTICE)


class NativeBinding(Leg, Binding):
    """It exists for as long as the connection, which a new CONNECT replaces."""

    __slots__ = (
        "challenged_at",
        "changes_at",
        "is_resumed",
        "knows_mode",
        "last_relay_change",
        "measured",
        "over_limit_reported_at",
        "path_key",
        "player_nonce",
        "reports_at",
        "roster_sent_at",
        "seat",
        "second_addr",
        "shared_with",
        "welcome",
    )
    dialect: ClassVar[DialectName] = "native"

    def __init__(
        self, connection: int, seat: "Seat", up_key: bytes, down_key: bytes, player_nonce: bytes, path_key: bytes
    ) -> None:
        super().__init__(connection, send_key=down_key, receive_key=up_key)
        self.seat = seat
        self.player_nonce = player_nonce
        self.is_resumed = False  # restored from an earlier process; the player has not confirmed it yet
        self.path_key = path_key  # derives the challenge for each address (PROTOCOL.md 9)
        self.welcome = b""  # sent again when the player repeats its CONNECT
        self.challenged_at = self.over_limit_reported_at = self.roster_sent_at = 0.0
        self.reports_at = 0.0  # the token bucket of its PATH_REPORTs (limits.bucket_after)
        self.changes_at = 0.0  # the same of its RELAY_CHANGEDs
        self.last_relay_change: int | None = None  # its number
        self.measured = NativeQuality()
        self.knows_mode = True  # False: its direct mode became stricter, and the player has not confirmed that roster
        self.shared_with: set[int] = set()  # seats to which the player has sent a RENDEZVOUS
        self.second_addr: Address | None = None  # another address at which the player has proved to receive

    def totals(self) -> tuple[int, int]:
        """Packets so far: (sent to the player, valid and new ones received from it)."""
        return self.sent, self.received

    def progress(self) -> bytes:
        """What changes with every packet, for `set_progress` of the same connection in another process."""
        return _COUNTS.pack(self.sent, self.received) + self.window.packed()

    def set_progress(self, packed: bytes) -> None:
        """Raises ValueError if it is that of another packet path."""
        if len(packed) != _COUNTS.size + self.window.PACKED_SIZE:
            raise ValueError("not the progress of such a connection")
        self.sent, self.received = _COUNTS.unpack_from(packed)
        self.window.unpack(packed[_COUNTS.size :])

    @property
    def is_proven(self) -> bool:
        return self.totals()[1] > 0

    @property
    def quality(self) -> Quality | None:
        measured = self.measured
        return None if measured.rtt_ms is None else Quality(measured.rtt_ms, measured.jitter_ms, measured.loss)

    def encode(self, source: "Seat", payload: bytes, now: float) -> bytes | None:
        # Leg.seal, written out: this runs for every packet.
        self.sent = sequence = self.sent + 1
        return seal(self.send_key, _DATA, self.id, sequence, source.number, payload)

    def encode_signal(self, kind: int, source: "Seat", body: bytes) -> bytes | None:
        return self.seal(kind, source.number, body)

    def encode_notice(self, about: int, notice: Notice) -> bytes | None:
        return self.seal(_NOTICE, about, notice.encode())

    def mode_became_stricter(self) -> None:
        """The seat's direct mode. The player's consent to direct paths (mode ask) does not hold any more."""
        self.knows_mode = False
        self.shared_with.clear()

    def may_report_over_limit(self, now: float) -> bool:
        if now - self.over_limit_reported_at < 1.0:
            return False
        self.over_limit_reported_at = now
        return True

"""A seat's binding in the edgegap dialect, with its state there (EDGEGAP.md 1)."""

from typing import TYPE_CHECKING, ClassVar

from ..addresses import Address
from ..path_quality import EdgegapQuality
from .binding import Binding, DialectName, Quality

if TYPE_CHECKING:
    from ..seats import Seat
    from .connection_ids import ConnectionIds

_DATA = b"\x02"

MOVE_PACKETS = 3
MOVE_SILENCE = 0.5


class EdgegapBinding(Binding):
    """It exists for every seat, for as long as the seat: the seat keeps its token, and the id by which an edgegap host
    knows it, while its player is away or uses another dialect."""

    __slots__ = (
        "_ids",
        "_is_host",
        "candidate",
        "candidate_packets",
        "connection_id",
        "measured",
        "pair",
        "prefix",
        "previous_addr",
        "seat",
        "token",
    )
    dialect: ClassVar[DialectName] = "edgegap"

    def __init__(self, seat: "Seat", connection_ids: "ConnectionIds") -> None:
        self.seat = seat
        self.token: int | None = None
        self.pair: int | None = None  # both tokens as the first 8 bytes of a datagram, little-endian
        self.previous_addr: Address | None = None  # the last address of a seat that timed out
        self.candidate: Address | None = None  # an address that may become the seat's (`may_move`)
        self.candidate_packets = 0
        self.connection_id = 0  # the id by which an edgegap host knows the seat; 0: none yet
        self.prefix = b""  # the bytes before the seat's payloads to an edgegap host; empty: the id is not settled
        self.measured: EdgegapQuality | None = None  # None: no ping yet
        self._ids = connection_ids
        self._is_host = seat.number == 0

    @property
    def quality(self) -> Quality | None:
        measured = self.measured
        if measured is None or not measured.is_known:
            return None
        return Quality(None, measured.jitter_ms, measured.loss)

    def encode(self, source: "Seat", payload: bytes, now: float) -> bytes | None:
        if self._is_host:
            return (source.edgegap.prefix or self._ids.prefix(source, payload, now)) + payload
        # An edgegap player assumes that every payload is its host's.
        return _DATA + payload if source.number == 0 else None

    def on_address_change(self, now: float) -> None:
        self._ids.address_changed(self.seat, now)

    def may_move(self, addr: Address, now: float) -> bool:
        """Count a valid packet from `addr`, which is not the seat's address. True: the seat may move there.

        The tokens of this dialect travel in clear text, so they prove little. A new address is accepted after several
        packets without one from the old address in between, or once the old address is silent (EDGEGAP.md 7.1). A
        packet from the old address clears the candidate.
        """
        if self.candidate != addr:
            self.candidate, self.candidate_packets = addr, 0
        self.candidate_packets += 1
        is_old_silent = now - self.seat.last_received >= MOVE_SILENCE
        return (self.candidate_packets >= MOVE_PACKETS or is_old_silent) and self.seat.may_move(now)

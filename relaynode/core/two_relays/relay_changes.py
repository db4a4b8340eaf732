"""RELAY_CHANGED: a player sends on its leg to this node from now on (PROTOCOL.md 14.3 and 14.4)."""

from typing import TYPE_CHECKING

from causeway_client.protocol.offers import ChangeReason, RelayChanged
from nodeapi.telemetry import MAX_COUNT

from ..dialects.native_binding import NativeBinding
from ..events import Event, Reason

if TYPE_CHECKING:
    from ..forwarding import Forwarder
    from ..seats import Seat

GAP_WAIT = 0.5  # seconds within which a further copy may have the gap, which the player learns after the change
BATCH = 2_000  # notices in a tenth of a second; a session of 255 players that all change causes 64,770

_NEWER = 1 << 15  # of 2^16
_REASONS: dict[ChangeReason, Reason] = {
    ChangeReason.PLANNED: "planned",
    ChangeReason.SILENT: "silent",
    ChangeReason.REFUSED: "refused",
    ChangeReason.ENDED: "ended",
    ChangeReason.EPOCH: "epoch",
}


class RelayChange:
    """The last change of a player, by its number."""

    __slots__ = ("at", "gap_ms", "is_reported", "number", "reason")

    def __init__(self, number: int, reason: Reason, gap_ms: int, at: float, is_reported: bool = False) -> None:
        self.number = number
        self.reason = reason
        self.gap_ms = gap_ms
        self.at = at
        self.is_reported = is_reported


class RelayChanges:
    def __init__(self, forwarder: "Forwarder") -> None:
        self._forwarder = forwarder
        self._waiting: dict[Seat, None] = {}  # the others are to be notified about these seats, in order
        self._tick = self._left = 0
        self._has_timer = False

    def received(self, binding: NativeBinding, packet: RelayChanged, now: float) -> None:
        """A copy of the player's RELAY_CHANGED. Each copy notifies the other players again: a lost notice would cost
        packets, and their number is limited."""
        seat, last = binding.seat, binding.relay_change
        gap_ms = min(packet.gap, MAX_COUNT)
        ahead = 1 if last is None else (packet.number - last.number) & 0xFFFF
        if ahead >= _NEWER:
            return
        if last is None or ahead:
            if last is not None:
                self._report(seat, last)
            last = binding.relay_change = RelayChange(packet.number, _REASONS[packet.reason], gap_ms, now)
            self._forwarder.counters.relay_changes[last.reason] += 1
            if not gap_ms:
                self._forwarder.timers.add(now + GAP_WAIT, self._report_without_gap, (seat, last))
        last.gap_ms = last.gap_ms or gap_ms
        if last.gap_ms:
            self._report(seat, last)
        self._waiting[seat] = None
        self._notify(now)

    def _report_without_gap(self, waiting: "tuple[Seat, RelayChange]", now: float) -> None:
        self._report(*waiting)

    def _report(self, seat: "Seat", change: RelayChange) -> None:
        """Once for each number."""
        if change.is_reported or seat.session.ended:
            return
        change.is_reported = True
        self._forwarder.events.append(
            Event(
                change.at,
                seat.session.name,
                seat.number,
                "relay_changed",
                NativeBinding.dialect,
                change.reason,
                change.gap_ms,
            )
        )

    def _notify(self, now: float) -> None:
        tick = int(now * 10)
        if tick != self._tick:
            self._tick, self._left = tick, BATCH
        while self._waiting and self._left > 0:
            seat = next(iter(self._waiting))
            del self._waiting[seat]
            self._left -= self._forwarder.notify_relay_changed(seat)
        if self._waiting and not self._has_timer:
            self._has_timer = True
            self._forwarder.timers.add(now, self._notify_again, None)

    def _notify_again(self, _: None, now: float) -> None:
        self._has_timer = False
        self._notify(now)

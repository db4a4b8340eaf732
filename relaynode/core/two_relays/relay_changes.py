"""RELAY_CHANGED: a player sends on its leg to this node from now on (PROTOCOL.md 14.3 and 14.4)."""

from typing import TYPE_CHECKING

from causeway_client.protocol.offers import ChangeReason, RelayChanged
from nodeapi.telemetry import MAX_COUNT

from ..dialects.native_binding import NativeBinding
from ..events import Event, Reason

if TYPE_CHECKING:
    from ..forwarding import Forwarder
    from ..seats import Seat

TICK = 0.05  # seconds, to which a timer adds the rest of a tenth of a second
BATCH = 2_000  # notices in a tenth of a second; a session of 255 players that all change causes 64,770

_NEWER = 1 << 15  # of 2^16
_REASONS: dict[ChangeReason, Reason] = {
    ChangeReason.PLANNED: "planned",
    ChangeReason.SILENT: "silent",
    ChangeReason.REFUSED: "refused",
    ChangeReason.ENDED: "ended",
    ChangeReason.EPOCH: "epoch",
}


class RelayChanges:
    def __init__(self, forwarder: "Forwarder") -> None:
        self._forwarder = forwarder
        self._waiting: dict[Seat, None] = {}  # the others are to be notified about these seats, in order
        self._tick = self._left = 0
        self._has_timer = False

    def received(self, binding: NativeBinding, packet: RelayChanged, now: float) -> None:
        """A copy of the player's RELAY_CHANGED. Each copy notifies the other players again: a lost notice would cost
        packets, and their number is limited."""
        last = binding.last_relay_change
        ahead = 1 if last is None else (packet.number - last) & 0xFFFF
        if ahead >= _NEWER:
            return
        if ahead:
            binding.last_relay_change = packet.number
            self._report(binding.seat, packet, now)
        self._waiting[binding.seat] = None
        self._notify(now)

    def _report(self, seat: "Seat", packet: RelayChanged, now: float) -> None:
        reason, gap = _REASONS[packet.reason], min(packet.gap, MAX_COUNT)
        self._forwarder.counters.relay_changes[reason] += 1
        self._forwarder.events.append(
            Event(now, seat.session.name, seat.number, "relay_changed", NativeBinding.dialect, reason, gap)
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
            self._forwarder.timers.add(now + TICK, self._notify_again, None)

    def _notify_again(self, _: None, now: float) -> None:
        self._has_timer = False
        self._notify(now)

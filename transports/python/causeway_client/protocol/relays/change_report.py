"""How a change of the active leg is reported: RELAY_CHANGED to the node, and RelayChanged to the game (PROTOCOL.md
14.3)."""

import math
from collections.abc import Callable, Hashable

from .. import events
from ..offers import ChangeReason, RelayChanged

REPEAT_AFTER = (0.1, 0.3)  # seconds after the change, when RELAY_CHANGED is sent again
GAP_WITHIN = 1.0  # seconds in which the first payload on the new leg ends the gap


class ChangeReport:
    """Of one change at `now`. `send(body)` sends a RELAY_CHANGED on the new leg. `silent_since`: the last packet on the
    old leg."""

    def __init__(
        self,
        number: int,
        previous: Hashable,
        current: Hashable,
        reason: ChangeReason,
        silent_since: float,
        now: float,
        send: Callable[[bytes], object],
    ) -> None:
        self._nodes = previous, current
        self._reason = reason
        self._silent_since, self._changed_at = silent_since, now
        self._copies = [now + after for after in REPEAT_AFTER]
        self._event: events.RelayChanged | None = None
        self._body = RelayChanged(number, reason, self._gap(now)).encode()
        self._send = send
        send(self._body)

    def _gap(self, now: float) -> int:
        return round(1000 * (now - self._silent_since))

    def payload_arrived(self, now: float) -> events.RelayChanged | None:
        """On the new leg. The event, if it was not returned before."""
        if self._event is not None:
            return None
        self._event = events.RelayChanged(*self._nodes, self._reason.name.lower(), self._gap(now))
        return self._event

    def next_timer(self) -> float:
        if self._copies:
            return self._copies[0]
        return math.inf if self._event is not None else self._changed_at + GAP_WITHIN

    def handle_timer(self, now: float) -> events.RelayChanged | None:
        """The event, if it is due without a payload."""
        while self._copies and now >= self._copies[0]:
            self._copies.pop(0)
            self._send(self._body)
        return self.payload_arrived(self._changed_at) if now >= self._changed_at + GAP_WITHIN else None

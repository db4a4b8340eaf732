"""Events of seats and sessions, which the manager stores (docs/node-api.md)."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["seat_joined", "seat_left", "seat_moved", "session_ended", "relay_changed", "seat_changed"]
# Not for the manager: state that a restarted node needs has changed (Relay.session_state).
INTERNAL_KINDS = frozenset({"seat_changed"})
Dialect = Literal["edgegap", "native", ""]
Reason = Literal[
    "", "closed", "timeout", "revoked", "ended", "idle", "expired", "planned", "silent", "refused", "epoch"
]


@dataclass(frozen=True, slots=True)
class Event:
    at: float  # seconds since 1970
    session: str
    seat: int | None  # None: about the whole session
    kind: Kind
    dialect: Dialect = ""
    reason: Reason = ""
    gap_ms: int = 0  # relay_changed: since the last packet on the leg before, as the player reports it

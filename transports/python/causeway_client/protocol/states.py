"""The states of a player's connection (connection.py has the picture)."""

from enum import Enum

from . import events


class State(Enum):
    IDLE = "idle"
    JOINING = "joining"
    RELAYED = "relayed"
    RECONNECTING = "reconnecting"
    CLOSED = "closed"


TRANSITIONS: dict[tuple[State, type[events.Event]], State] = {
    (State.IDLE, events.ConnectStarted): State.JOINING,
    (State.IDLE, events.Closed): State.CLOSED,
    (State.JOINING, events.Welcomed): State.RELAYED,
    (State.JOINING, events.Closed): State.CLOSED,
    (State.RELAYED, events.ReconnectStarted): State.RECONNECTING,
    (State.RELAYED, events.Closed): State.CLOSED,
    (State.RECONNECTING, events.Welcomed): State.RELAYED,
    (State.RECONNECTING, events.Closed): State.CLOSED,
}

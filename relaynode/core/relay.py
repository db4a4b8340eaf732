"""Relay, the sans-I/O core of one worker. For each datagram that it receives, it sends a datagram or counts a drop.

Time is always an argument: seconds since 1970 that never decrease. The answer to a packet is returned. Additional
datagrams, which are rare (fan-out, notices, challenges), are queued.
"""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from causeway_client.protocol.packets import MAX_DATAGRAM, NoticeCode, mac
from causeway_client.protocol.siphash import siphash24
from nodeapi.grants import Grant
from nodeapi.telemetry import LegQuality, PathQuality

from .addresses import CLIENT_PORT, SERVER_PORT, Address, Outgoing, household_bytes, prefix_of
from .admission import Admission
from .dialects.binding import Dialect, Quality
from .dialects.edgegap import Edgegap
from .dialects.edgegap_binding import EdgegapBinding
from .dialects.native import Native
from .dialects.native_binding import NativeBinding
from .events import Event
from .forwarding import Forwarder
from .grants import GrantRefused
from .relay_config import RelayConfig
from .resumption import connection_state, progress, resume, set_progress
from .seats import Mirror, Random, Seat
from .sessions import Sessions

__all__ = [
    "CLIENT_PORT",
    "SERVER_PORT",
    "Address",
    "GrantRefused",
    "Outgoing",
    "Relay",
    "RelayConfig",
    "SessionSummary",
]

_SHORTEST = 9


class SessionSummary(NamedTuple):
    session: str
    revision: int  # 0: admitted by a connect token, never granted
    since: float  # the time of the last grant, or of the admission


class Relay:
    def __init__(self, *, worker: int, config: RelayConfig, random: Random, mirror: Mirror | None = None) -> None:
        """`random(n)` returns n bytes that may serve as keys, as os.urandom does. `mirror`: see Forwarder."""
        self._forwarder = Forwarder(config, random, mirror)
        self._sessions = Sessions(worker, self._forwarder)
        self._admission = Admission(worker, self._forwarder, self._sessions)
        self._native = Native(self._forwarder, self._admission)
        edgegap: Dialect = Edgegap(self._forwarder, self._sessions)
        native: Dialect = self._native
        self._receive_edgegap, self._receive_native = edgegap.receive, native.receive
        self._legs_reported = 0
        self._player_key = random(16)
        self.counters = self._forwarder.counters

    # -- packets

    def receive_datagram(self, data: bytes, addr: Address, port: int, now: float) -> Outgoing | None:
        """The datagram to send, if any; more may wait in `datagrams_to_send`. `port`: the one at which it arrived."""
        size = len(data)
        if size < _SHORTEST:
            return self.counters.drop("too_short")
        if size > MAX_DATAGRAM:
            return self.counters.drop("too_long")
        if data[0] & 0xE0 == 0xC0:
            return self._receive_native(data, size, addr, port, now)
        return self._receive_edgegap(data, size, addr, port, now)

    @property
    def forwarder(self) -> Forwarder:
        """The forwarder, for a packet path that uses the same seat table."""
        return self._forwarder

    def datagrams_to_send(self) -> list[Outgoing]:
        """Remove and return the queued datagrams."""
        outbox = self._forwarder.outbox
        if not outbox:
            return outbox
        self._forwarder.outbox = []
        return outbox

    # -- time

    def next_timer(self) -> float | None:
        """The time at which `handle_timer` is due; None: there is no timer."""
        return self._forwarder.timers.next()

    def handle_timer(self, now: float) -> None:
        self._forwarder.timers.run(now)

    def extend_timers(self, gap: float, now: float) -> None:
        """The process was suspended for `gap` seconds until `now`. It does not count as silence of any player."""
        self._forwarder.table.extend_silence(gap, now)

    def next_event(self) -> Event | None:
        events = self._forwarder.events
        return events.popleft() if events else None

    # -- commands of the manager

    def apply_grant(self, grant: Grant, now: float) -> int:
        """Returns the revision now in force: that of the grant, or of a newer one. Raises GrantRefused."""
        return self._sessions.apply(grant, now)

    def end_session(self, session: str, reason: str, now: float) -> None:
        """Stop forwarding for the session and remember that it has ended. Idempotent (docs/node-api.md)."""
        self._sessions.end(session, reason, now)

    def set_token_keys(self, keys: Mapping[int, bytes]) -> None:
        """Set the node's token keys by id, 32 bytes each. Connections made under other keys are unaffected."""
        if keys:  # equal in all workers and after a restart, so that a player is always counted as the same one
            self._player_key = mac(keys[min(keys)], b"causeway v1 player")
        self._admission.set_token_keys(keys)
        self._native.set_token_keys(keys)

    def set_draining(self, draining: bool, now: float) -> None:
        """While draining, new sessions are refused, but new seats of existing sessions are admitted."""
        self._sessions.draining = draining

    def set_grants_known(self, known: bool) -> None:
        """False until the manager's list of sessions has been read: unknown tokens are not reported as invalid yet."""
        self._sessions.grants_known = known

    def confirm_ended(self, listed_at: float, ended_before: float, listed: Collection[str]) -> list[str]:
        """The manager's list, made at `listed_at` by its clock, is applied. Returns the ended sessions forgotten."""
        return self._sessions.confirm_ended(listed_at, ended_before, listed)

    def notify_shutdown(self, now: float) -> None:
        """Queue NOTICE draining for every native player."""
        self._forwarder.notify_all(NoticeCode.DRAINING)

    # -- state and statistics

    def sessions(self) -> list[SessionSummary]:
        return [SessionSummary(it.name, it.revision, it.since) for it in self._forwarder.table.sessions.values()]

    def session_state(self, session: str) -> dict[str, Any] | None:
        """The state for `restore_session`, as JSON; None: unknown. It changes with grants and events of the session."""
        return self._sessions.state(session)

    def restore_session(self, state: Mapping[str, Any], now: float) -> None:
        """Restore a session from its `session_state`, also while draining. Raises only GrantRefused."""
        self._sessions.restore(state, now)

    def connection_state(self, session: str, seat: int) -> dict[str, Any] | None:
        """The state for `resume_connection`, as JSON; None: there is no such seat. It changes with the seat's
        events."""
        found = self._forwarder.table.sessions.get(session)
        known = found.seats.get(seat) if found else None
        return None if known is None else connection_state(known)

    def resume_connection(self, state: Mapping[str, Any], now: float) -> None:
        """Connect a player of a restored session again, from its `connection_state`. Raises only GrantRefused."""
        session = self._forwarder.table.sessions.get(state.get("session", ""))
        seat = session.seats.get(state.get("seat", -1)) if session else None
        if seat is not None:
            resume(self._forwarder, seat, state, now)

    def progress(self) -> list[bytes]:
        """What changes with every packet of a connection, for `set_progress`, in parts of at most a megabyte."""
        return progress(self._forwarder.table)

    def set_progress(self, packed: bytes) -> None:
        """Go on with the connections where another process has stopped: neither skips a sequence number, nor has a
        player to confirm anything. Raises GrantRefused."""
        set_progress(self._forwarder.table, packed)

    def forget_session(self, session: str) -> None:
        """Drop a session as if it had never been restored: no player and no manager is notified."""
        found = self._forwarder.table.sessions.get(session)
        if found is not None:
            for seat in found.seats.values():
                self._forwarder.table.unbind(seat)
            self._forwarder.table.remove_session(found)

    def stats(self) -> dict[str, int]:
        table = self._forwarder.table
        return {"sessions": len(table.sessions), "seats": table.seat_count, "connected": table.connected}

    def legs(self, limit: int) -> list[LegQuality]:
        """At most `limit` connected seats whose quality is known, starting after those of the previous call."""
        table = self._forwarder.table
        bindings: list[NativeBinding | EdgegapBinding] = [*table.by_connection.values(), *table.by_pair.values()]
        measured = [
            (binding.seat, quality)
            for binding in bindings
            if binding.seat.binding is binding and binding.seat.addr and (quality := binding.quality) is not None
        ]
        start = self._legs_reported if self._legs_reported < len(measured) else 0
        chosen = measured[start : start + limit]
        self._legs_reported = start + len(chosen)
        return [_leg_report(seat, quality, self._player_key) for seat, quality in chosen]

    def paths(self, limit: int) -> list[PathQuality]:
        """At most `limit` reports of players about their paths to each other, each one once."""
        return self._forwarder.path_reports.take(limit)


def _leg_report(seat: Seat, quality: Quality, player_key: bytes) -> LegQuality:
    return LegQuality(
        session=seat.session.name,
        seat=seat.number,
        dialect=seat.binding.dialect,
        prefix=prefix_of(seat.addr) if seat.addr else "",
        player=siphash24(player_key, household_bytes(seat.addr))[:4].hex() if seat.addr else "",
        rtt_ms=None if quality.rtt_ms is None else round(quality.rtt_ms, 3),
        jitter_ms=round(quality.jitter_ms, 3),
        loss=round(quality.loss, 4),
    )

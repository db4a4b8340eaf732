"""Relay, the sans-I/O core of one worker: a datagram in -> a datagram out, or a named drop.

Time is an argument everywhere: seconds since 1970 that never step back. What happens rarely (a fan-out, notices,
challenges) is queued; a hot packet is looked up and returned.
"""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from causeway_client.protocol.packets import MAX_DATAGRAM, NoticeCode, mac
from causeway_client.protocol.siphash import siphash24
from nodeapi.grants import Grant
from nodeapi.telemetry import LegQuality

from ..datapath.buffers import Leaving
from ..datapath.fast_path import FastLane
from . import stun
from .addresses import CLIENT_PORT, SERVER_PORT, Address, Outgoing, household_bytes, prefix_of
from .admission import Admission
from .dialects.edgegap import Edgegap
from .dialects.native import Native
from .events import Event
from .forwarding import Exchange
from .grants import GrantRefused
from .limits import SourceLimiter
from .path_quality import Leg, PingSpacing
from .relay_config import RelayConfig
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
_int = int.from_bytes


class SessionSummary(NamedTuple):
    session: str
    revision: int  # 0: admitted by a connect token, never granted
    since: float  # when it was granted last, or admitted


class Relay:
    def __init__(self, *, worker: int, config: RelayConfig, random: Random, mirror: Mirror | None = None) -> None:
        """`random(n)` gives n bytes fit for keys, as os.urandom does. `mirror`: for another packet path."""
        self._exchange = Exchange(config, random, mirror)
        self._sessions = Sessions(worker, self._exchange)
        self._admission = Admission(worker, self._exchange, self._sessions)
        self._edgegap = Edgegap(self._exchange, self._sessions)
        self._native = Native(self._exchange, self._admission)
        self._stun_sources = SourceLimiter(config.stun_per_source, random(16))
        self._by_pair = self._exchange.table.by_pair
        self._is_only_path = mirror is None
        self._legs_told = 0
        self._player_key = random(16)
        self.counters = self._exchange.counters

    # -- packets

    def receive_datagram(self, data: bytes, addr: Address, port: int, now: float) -> Outgoing | None:
        """What to send for it, if anything; more may wait in `datagrams_to_send`. `port`: the one it came to."""
        size = len(data)
        if size < _SHORTEST:
            return self.counters.drop("too_short")
        if size > MAX_DATAGRAM:
            return self.counters.drop("too_long")
        if data[0] & 0xF0 == 0xC0:
            return self._native.receive(data, size, addr, port, now)
        # No pair in the table begins as the other protocols do (PROTOCOL.md 2), so it may be asked first.
        pair = _int(data[:8], "little")
        seat = self._by_pair.get(pair)
        if seat is not None:
            return self._edgegap.receive(seat, data, size, addr, port, now)
        if stun.looks_like_stun(data):
            return self._receive_stun(data, addr, port, now)
        return self._edgegap.receive_unknown(pair, data[8], addr, port, now)

    def fast_lane(self, leaving: tuple[Leaving, Leaving]) -> FastLane | None:
        """To be given whole batches in place of `receive_datagram`; None where another path keeps the table too."""
        return FastLane(self._exchange, self.receive_datagram, leaving) if self._is_only_path else None

    def datagrams_to_send(self) -> list[Outgoing]:
        """What waits to be sent, handed over."""
        outbox = self._exchange.outbox
        if not outbox:
            return outbox
        self._exchange.outbox = []
        return outbox

    def _receive_stun(self, data: bytes, addr: Address, port: int, now: float) -> Outgoing | None:
        if not self._stun_sources.take(addr, now) or not self._exchange.unauthenticated_replies.take(now):
            return self.counters.drop("source_rate_limited")
        response = stun.answer(data, addr)
        if response is None:
            return self.counters.drop("bad_stun")
        self.counters.answers["stun"] += 1
        return port, response, addr

    # -- time

    def next_timer(self) -> float | None:
        """When `handle_timer` is due; None: not before something else happens."""
        return self._exchange.deadlines.next()

    def handle_timer(self, now: float) -> None:
        self._exchange.deadlines.run(now)

    def extend_timers(self, gap: float, now: float) -> None:
        """The process did not run for `gap` seconds until `now`: nobody was silent for that time."""
        self._exchange.table.extend_silence(gap, now)

    def next_event(self) -> Event | None:
        events = self._exchange.events
        return events.popleft() if events else None

    # -- what the manager says

    def apply_grant(self, grant: Grant, now: float) -> int:
        """The revision now in force: the grant's, or that of a newer one held already. Raises GrantRefused."""
        return self._sessions.apply(grant, now)

    def end_session(self, session: str, reason: str, now: float) -> None:
        """When it returns nothing of the session is forwarded. Idempotent, and remembered (docs/node-api.md)."""
        self._sessions.end(session, reason, now)

    def set_token_keys(self, keys: Mapping[int, bytes]) -> None:
        """The node's token keys by id, 32 bytes each; connections made under others live on."""
        if keys:  # the same after a restart and in every worker, or one player would count for several
            self._player_key = mac(keys[min(keys)], b"causeway v1 player")
        self._admission.set_token_keys(keys)
        self._native.set_token_keys(keys)

    def set_draining(self, draining: bool, now: float) -> None:
        """While draining, no new sessions; new seats of those here are let in."""
        self._sessions.draining = draining

    def set_grants_known(self, known: bool) -> None:
        """False until the manager's list of sessions was read: unknown tokens are then being checked, not invalid."""
        self._sessions.grants_known = known

    def confirm_ended(self, listed_at: float, ended_before: float, listed: Collection[str]) -> list[str]:
        """The manager's list, made at `listed_at` by its clock, is served. The ended sessions that are forgotten."""
        return self._sessions.confirm_ended(listed_at, ended_before, listed)

    def notify_shutdown(self, now: float) -> None:
        """Queue NOTICE draining for every native player."""
        self._exchange.notify_all(NoticeCode.DRAINING)

    # -- what there is

    def sessions(self) -> list[SessionSummary]:
        return [SessionSummary(it.name, it.revision, it.since) for it in self._exchange.table.sessions.values()]

    def session_state(self, session: str) -> dict[str, Any] | None:
        """JSON-able, for `restore_session`; None when unknown. Changes with grants, and with events of the session."""
        return self._sessions.state(session)

    def restore_session(self, state: Mapping[str, Any], now: float) -> None:
        """Take back a `session_state`, also while draining. Raises GrantRefused, and nothing else."""
        self._sessions.restore(state, now)

    def stats(self) -> dict[str, int]:
        table = self._exchange.table
        return {"sessions": len(table.sessions), "seats": table.seat_count, "connected": table.connected}

    def legs(self, limit: int) -> list[LegQuality]:
        """Connected seats of which something is known, at most `limit`, going on where the last call stopped."""
        table = self._exchange.table
        known: list[Seat] = [link.seat for link in table.by_connection.values() if link.leg.rtt_ms is not None]
        known += [seat for seat in table.by_pair.values() if seat.addr and not seat.link and _is_spaced(seat)]
        start = self._legs_told if self._legs_told < len(known) else 0
        chosen = known[start : start + limit]
        self._legs_told = start + len(chosen)
        return [_leg_report(seat, self._player_key) for seat in chosen]


def _is_spaced(seat: Seat) -> bool:
    return seat.pings is not None and seat.pings.is_known


def _leg_report(seat: Seat, player_key: bytes) -> LegQuality:
    measured: Leg | PingSpacing | None = seat.link.leg if seat.link else seat.pings
    rtt_ms = seat.link.leg.rtt_ms if seat.link else None
    return LegQuality(
        session=seat.session.name,
        seat=seat.number,
        dialect="native" if seat.link else "edgegap",
        prefix=prefix_of(seat.addr) if seat.addr else "",
        player=siphash24(player_key, household_bytes(seat.addr))[:4].hex() if seat.addr else "",
        rtt_ms=None if rtt_ms is None else round(rtt_ms, 3),
        jitter_ms=round(measured.jitter_ms, 3) if measured else 0.0,
        loss=round(measured.loss, 4) if measured else 0.0,
    )

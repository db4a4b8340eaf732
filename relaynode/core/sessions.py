"""The lifecycle of sessions: they start by a grant or a connect token, end by command or by time, and ended ones are
remembered for a while."""

import math
from array import array
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nodeapi.grants import TIME_LIMIT, Grant
from nodeapi.strict_json import as_builtins

from .dialects.native_binding import NativeBinding
from .events import Event, Reason
from .forwarding import Forwarder
from .grants import GrantRefused, read_grant
from .seat_table import token_pair
from .seats import Session

_CHECK_INTERVAL = 60.0  # seconds between checks of a session
_SHORTEST_MEMORY = 60.0  # seconds; packets sent before the end may still arrive
_LISTED_SLACK = 30.0  # seconds; more than the maximum difference between the clocks of two managers


@dataclass(frozen=True, slots=True)
class Tombstone:
    """A session that ended here. Neither a late grant nor a connect token starts it again. Times are seconds since
    1970."""

    session: str
    reason: str
    ended_at: float
    forget_at: float  # no token of it is valid after that


class EndedPairs:
    """The token pairs of sessions that ended within the last minute: their players may not know it yet, and are not
    guessing. The oldest make room for new ones."""

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._reasons: dict[int, str] = {}
        self._ends: deque[tuple[float, array[int]]] = deque()  # (when, the session's pairs), oldest first
        self._count = 0

    def add(self, pairs: Collection[int], reason: str, now: float) -> None:
        if not pairs:
            return
        self._reasons.update(dict.fromkeys(pairs, reason))
        self._ends.append((now, array("Q", pairs)))
        self._count += len(pairs)
        self.forget(now)

    def reason(self, pair: int) -> str | None:
        return self._reasons.get(pair)

    def forget(self, now: float) -> None:
        """What is older than a minute, or more than the maximum."""
        while self._ends and (self._count > self._maximum or self._ends[0][0] <= now - _SHORTEST_MEMORY):
            _, pairs = self._ends.popleft()
            self._count -= len(pairs)
            for pair in pairs:
                self._reasons.pop(pair, None)


class Sessions:
    def __init__(self, worker: int, forwarder: Forwarder) -> None:
        self.draining = False
        self.grants_known = True  # False: the manager's list of sessions was not read yet, so there may be others
        self._worker = worker
        self._forwarder = forwarder
        self._table = forwarder.table
        self._listed_at = 0.0  # when the manager made the last list that was taken over whole, by its clock
        self._tombstones: dict[str, Tombstone] = {}  # in the order in which they ended
        self._ended_pairs = EndedPairs(forwarder.config.max_ended_pairs)

    # -- begin and change

    def apply(self, grant: Grant, now: float) -> int:
        """Apply a grant; returns the revision in force. Raises GrantRefused."""
        session = self._table.sessions.get(grant.session)
        if session is not None and grant.revision <= session.revision:
            return session.revision
        self._check(grant, session, now)
        self.check_room(session, self._new_seats(grant, session))
        if session is None:
            self.open(grant, now)
        else:
            self._change(session, grant, now)
        return grant.revision

    def open(self, grant: Grant, now: float) -> Session:
        session = self._table.put_session(grant, now)
        self._take_offers(session, grant, now)
        self._check_time(session, now)
        return session

    def check_room(self, session: Session | None, new_seats: int) -> None:
        """Raises GrantRefused: "full", or "draining" for a new session."""
        config = self._forwarder.config
        if session is None and self.draining:
            raise GrantRefused("draining", "this node takes no new sessions")
        if self._table.seat_count + new_seats > config.max_seats:
            raise GrantRefused("full", "no room for so many seats")
        if session is None and len(self._table.sessions) >= config.max_sessions:
            raise GrantRefused("full", "no room for another session")

    def _new_seats(self, grant: Grant, session: Session | None) -> int:
        known = session.seats if session else {}
        return sum(seat.seat not in known for seat in grant.seats)

    def _check(self, grant: Grant, session: Session | None, now: float) -> None:
        if grant.worker != self._worker:
            raise GrantRefused("invalid", f"worker must be {self._worker}", "worker")
        if self.has_ended(grant.session):
            raise GrantRefused("session_ended", "the session was ended here")
        if grant.expires_at <= now:
            raise GrantRefused("invalid", "expires_at must be in the future", "expires_at")
        if session is not None and session.admits_edgegap != ("edgegap" in grant.dialects):
            # Players would read the other's packets wrongly (PROTOCOL.md 7.1).
            raise GrantRefused("invalid", "edgegap cannot be admitted or excluded later", "dialects")
        listed = {seat.seat for seat in grant.seats}
        # A seat that is not listed any more is revoked and keeps its token, also under another token of the session.
        others = session.seats.values() if session is not None else ()
        kept = {seat.edgegap.token for seat in others if seat.number not in listed}
        for index, seat in enumerate(grant.seats):
            if seat.token is not None and seat.token in kept:
                raise GrantRefused("invalid", "token is another seat's", f"seats[{index}].token")
            if seat.token is None or grant.token is None:
                continue
            known = self._table.by_pair.get(token_pair(seat.token, grant.token))
            if known is None:
                continue
            if known.seat.session is not session:
                raise GrantRefused("invalid", "token is another seat's", f"seats[{index}].token")

    def _change(self, session: Session, grant: Grant, now: float) -> None:
        listed = {seat.seat for seat in grant.seats}
        before = {seat.number: (seat.revoked, seat.effective_mode) for seat in session.seats.values()}
        self._table.put_session(grant, now)
        self._take_offers(session, grant, now)
        is_announced = False
        for seat in session.seats.values():
            # A seat that was admitted by its connect token may be newer than the grant.
            if seat.granted and seat.number not in listed:
                self._table.revoke(seat)
            was_revoked, mode_before = before.get(seat.number, (False, seat.effective_mode))
            if seat.revoked and not was_revoked:
                # The others are notified also if it has no connection: its player may have direct paths to them.
                self._forwarder.leave(seat, "revoked", now)
                is_announced = True
            elif seat.binding.dialect not in session.dialects:
                self._forwarder.leave(seat, "revoked", now)
            if seat.effective_mode is not mode_before:
                if seat.effective_mode < mode_before:
                    seat.binding.mode_became_stricter()
                    self._forwarder.report_changed(seat, now)
                is_announced = True
        if is_announced:
            self._forwarder.announce_roster(session, now)
        self._check_time(session, now)

    def _take_offers(self, session: Session, grant: Grant, now: float) -> None:
        for seat_grant in grant.seats:
            self._forwarder.offers.granted(session.seats[seat_grant.seat], seat_grant.offer, now)

    # -- end

    def end(self, name: str, reason: str, now: float) -> None:
        """Nothing of the session is forwarded any more. An unknown session is refused from now on."""
        session = self._table.sessions.get(name)
        if session is not None:
            self._end(session, reason, now)
        elif name not in self._tombstones:
            self._remember(Tombstone(name, reason, now, now + self._forwarder.config.remember_ended), now)

    def has_ended(self, name: str) -> bool:
        return name in self._tombstones

    def is_over(self, name: str, issued: float) -> bool:
        """Whether the session of a connect token, issued at that time, has ended: here, or before the manager's last
        list, in which it would be. False for a session that is served."""
        if name in self._table.sessions:
            return False
        return name in self._tombstones or issued < self._listed_at - _LISTED_SLACK

    def why_ended(self, pair: int) -> str | None:
        """The reason for which the session of these two tokens ended within the last minute; None: there was none."""
        return self._ended_pairs.reason(pair)

    def confirm_ended(self, listed_at: float, ended_before: float, listed: Collection[str]) -> list[str]:
        """The manager's list of sessions, made at `listed_at`, was taken over: by it `is_over` knows what tombstones
        before that moment say. Forgets and returns those that ended before `ended_before` and are not `listed`."""
        self._listed_at = max(self._listed_at, listed_at)
        gone = []
        for name, tombstone in self._tombstones.items():
            if tombstone.ended_at >= ended_before:
                break
            if name not in listed:
                gone.append(name)
        for name in gone:
            del self._tombstones[name]
        return gone

    def _end(self, session: Session, reason: str, now: float) -> None:
        for seat in session.seats.values():
            self._forwarder.leave(seat, "ended", now, text=reason)
        pairs = [seat.edgegap.pair for seat in session.seats.values() if seat.edgegap.pair is not None]
        self._table.remove_session(session)
        self._ended_pairs.add(pairs, reason, now)
        if pairs:
            self._forwarder.timers.add(now + _SHORTEST_MEMORY, self._forget_pairs, None)
        # Without the native dialect there are no connect tokens.
        has_tokens = NativeBinding.dialect in session.dialects
        forget_at = max(session.expires_at, now + _SHORTEST_MEMORY) if has_tokens else now + _SHORTEST_MEMORY
        self._remember(Tombstone(session.name, reason, now, forget_at), now)

    def _forget_pairs(self, _: None, now: float) -> None:
        self._ended_pairs.forget(now)

    def _remember(self, tombstone: Tombstone, now: float) -> None:
        """Expired tombstones are dropped, and the oldest ones if there are too many."""
        self._tombstones[tombstone.session] = tombstone
        while self._tombstones:
            first = next(iter(self._tombstones.values()))
            if first.forget_at > now and len(self._tombstones) <= self._forwarder.config.max_tombstones:
                break
            del self._tombstones[first.session]

    def _check_time(self, session: Session, now: float) -> None:
        """End the session if its time is up; otherwise set the timer of the next check."""
        for seat in session.seats.values():
            self._table.mirror.refresh(seat)
        idle_at = max([session.since, *(seat.last_received for seat in session.seats.values())]) + session.idle_timeout
        if session.expires_at <= now:
            self._end_by_clock(session, "expired", now)
        elif idle_at <= now:
            self._end_by_clock(session, "idle", now)
        else:
            session.check_at = min(session.expires_at, idle_at, now + _CHECK_INTERVAL)
            self._forwarder.timers.add(session.check_at, self._check_again, session)

    def _check_again(self, session: Session, now: float) -> None:
        # Each change of the terms adds a deadline; only the one that was set last counts.
        if not session.ended and session.check_at <= now:
            self._check_time(session, now)

    def _end_by_clock(self, session: Session, reason: Reason, now: float) -> None:
        self._end(session, reason, now)
        self._forwarder.events.append(Event(now, session.name, None, "session_ended", reason=reason))

    # -- state that outlives the process

    def state(self, name: str) -> dict[str, Any] | None:
        """What `restore` needs of one session, JSON-able; None when it is unknown. Holds tokens: keep it private."""
        session = self._table.sessions.get(name)
        if session is not None:
            connects = {str(seat.number): seat.last_connect for seat in session.seats.values() if seat.last_connect}
            return {
                "session": name,
                "revision": session.revision,
                "ended": False,
                "grant": as_builtins(session.as_grant(self._worker)),
                "connects": connects,
                "connection_ids": {
                    str(seat.number): seat.edgegap.connection_id
                    for seat in session.seats.values()
                    if seat.edgegap.connection_id
                },
                "offer_deadlines": {
                    str(seat.number): seat.offer.until for seat in session.seats.values() if seat.offer is not None
                },
                "acknowledged_offers": {
                    str(seat.number): seat.acknowledged_offer
                    for seat in session.seats.values()
                    if seat.acknowledged_offer
                },
                "granted": [seat.number for seat in session.seats.values() if seat.granted],
                "roster_generation": session.roster_generation,
            }
        tombstone = self._tombstones.get(name)
        return {"ended": True, **asdict(tombstone)} if tombstone is not None else None

    def restore(self, state: Mapping[str, Any], now: float) -> None:
        """Take back what `state` gave. Raises GrantRefused."""
        try:
            if state["ended"]:
                self._restore_tombstone(state, now)
            else:
                self._restore_session(state, now)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise GrantRefused("invalid", "not the state of a session") from error

    def _restore_tombstone(self, state: Mapping[str, Any], now: float) -> None:
        tombstone = Tombstone(
            session=str(state["session"]),
            reason=str(state["reason"]),
            ended_at=float(state["ended_at"]),
            forget_at=float(state["forget_at"]),
        )
        if tombstone.session in self._table.sessions or self.has_ended(tombstone.session):
            raise ValueError("the session is there already")
        if not math.isfinite(tombstone.ended_at):
            raise ValueError("ended_at is not a time")
        if now < tombstone.forget_at < TIME_LIMIT:
            self._remember(tombstone, now)

    def _restore_session(self, state: Mapping[str, Any], now: float) -> None:
        grant = read_grant(state["grant"])
        granted = {int(seat) for seat in state["granted"]}
        connects = _by_seat(state["connects"], 1 << 64)
        connection_ids = _by_seat(state["connection_ids"], 1 << 31)
        deadlines = {int(seat): float(until) for seat, until in state["offer_deadlines"].items()}
        acknowledged = _by_seat(state["acknowledged_offers"], 1 << 32)
        generation = int(state["roster_generation"])
        if not 0 <= generation < 1 << 32:
            raise ValueError("out of range")
        if not all(map(math.isfinite, deadlines.values())):
            raise ValueError("not a time")
        if len(set(connection_ids.values())) < len(connection_ids):
            raise ValueError("two seats have one connection id")
        self._check(grant, None, now)
        if grant.session in self._table.sessions:
            raise ValueError("the session is there already")
        session = self.open(grant, now)
        session.roster_generation = generation
        for seat in session.seats.values():
            seat.granted = seat.number in granted
            if seat.offer is not None:
                seat.offer.until = deadlines.get(seat.number, seat.offer.until)
            seat.acknowledged_offer = acknowledged.get(seat.number, 0)
            seat.last_connect = connects.get(seat.number, 0)
            if seat.number in connection_ids:
                self._table.connection_ids.restore(seat, connection_ids[seat.number])


def _by_seat(numbers: Mapping[str, Any], end: int) -> dict[int, int]:
    """{seat: a number from 1 to below `end`}. Raises what broken JSON makes it raise, among it ValueError."""
    found = {int(seat): int(number) for seat, number in numbers.items()}
    if not all(1 <= number < end for number in found.values()):
        raise ValueError("out of range")
    return found

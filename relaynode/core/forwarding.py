"""Forwarding between seats, and their presence: they join, move and leave.

A payload that one seat sends in any dialect is delivered in the dialect of the seat that receives it (Binding.encode).
"""

from collections import deque

from causeway_client.protocol.packets import DirectMode, Notice, NoticeCode

from .addresses import Address, Outgoing, ip_and_port
from .counters import Counters
from .dialects.native_binding import NativeBinding
from .events import Event, Kind, Reason
from .limits import Budget
from .path_reports import PathReports
from .relay_config import RelayConfig
from .seat_table import SeatTable
from .seats import Mirror, Random, Seat, Session
from .timers import Timers
from .two_relays.offers import Offers
from .two_relays.relay_changes import RelayChanges

NOTICE_REPEATS = (0.05, 0.25)  # seconds after the first copy; timers add 0.05 on average (PROTOCOL.md 7.3)
ROSTER_TICK = 0.05  # seconds, to which a timer adds the rest of a tenth of a second
ROSTER_COPIES = (1, 3)  # the ticks after the first copy at which an announced roster is sent again
_FINAL_NOTICES = {"revoked": NoticeCode.REVOKED, "ended": NoticeCode.ENDED}


class Forwarder:
    """`mirror` is that of another packet path; None: there is no other one."""

    def __init__(self, config: RelayConfig, random: Random, mirror: Mirror | None = None) -> None:
        self.config = config
        self.random = random
        self.is_only_path = mirror is None
        self.table = SeatTable(random, mirror)
        self.counters = Counters()
        self.timers = Timers()
        self.unauthenticated_replies = Budget(config.unauthenticated_replies)
        self.outbox: list[Outgoing] = []
        self.events: deque[Event] = deque()
        self.path_reports = PathReports(self.counters)
        self.offers = Offers(self)
        self.relay_changes = RelayChanges(self)
        self._connection_ids = self.table.connection_ids
        self._connection_ids.on_change = self.report_changed

    # -- payloads

    def deliver(self, source: Seat, target: Seat | None, payload: bytes, now: float) -> Outgoing | None:
        """The datagram that delivers `payload` to `target`. None, and a counted drop, if it cannot be delivered."""
        if target is None or (addr := target.addr) is None:
            return self.counters.drop("peer_absent")
        datagram = target.binding.encode(source, payload, now)
        if datagram is None:
            return self.counters.drop("not_allowed")
        counters = self.counters
        counters.forwarded_packets += 1
        counters.forwarded_bytes += len(datagram)
        return target.port, datagram, addr

    def others(self, source: Seat) -> list[Seat]:
        """Every connected seat of the session except the source: the receivers of a fan-out.

        A native player that has only sent its CONNECT is left out. A CONNECT may carry a forged source address, which
        the copies of one packet would flood. The player's next packet proves that it has received the WELCOME."""
        return [seat for seat in source.session.seats.values() if seat is not source and _is_proven(seat)]

    def deliver_to_all(self, source: Seat, targets: list[Seat], payload: bytes, now: float) -> Outgoing | None:
        """Queue a copy for each target."""
        if not targets:
            return self.counters.drop("peer_absent")
        for target in targets:
            outgoing = self.deliver(source, target, payload, now)
            if outgoing is not None:
                self.outbox.append(outgoing)
        return None

    def deliver_signal(self, kind: int, source: Seat, target: Seat | None, body: bytes) -> Outgoing | None:
        """The datagram that delivers a SIGNAL, or another native packet between two seats, which no game receives."""
        if target is None or target.addr is None:
            return self.counters.drop("peer_absent")
        datagram = target.binding.encode_signal(kind, source, body)
        if datagram is None:
            return self.counters.drop("peer_absent")
        self.counters.forwarded_packets += 1
        self.counters.forwarded_bytes += len(datagram)
        return target.port, datagram, target.addr

    def over_limit(self, seat: Seat, now: float) -> Outgoing | None:
        """A packet of the seat exceeded a limit: drop it, and notify its player at most once per second."""
        if seat.binding.may_report_over_limit(now):
            self._notify(seat, Notice(NoticeCode.OVER_QUOTA), seat)
        return self.counters.drop("rate_limited")

    # -- presence

    def join(self, seat: Seat, addr: Address, port: int, now: float) -> None:
        """An edgegap player connects."""
        if seat.edgegap.previous_addr != addr:
            seat.edgegap.on_address_change(now)
        self.table.bind(seat, addr, port, now)
        self._joined(seat, "seat_joined", now)

    def join_native(self, seat: Seat, binding: NativeBinding, addr: Address, port: int, now: float) -> None:
        """A native player connects: for the first time, again, or after it used the edgegap dialect."""
        used_edgegap = seat.binding is seat.edgegap
        if used_edgegap and seat.addr is not None:
            self._connection_ids.retire(seat)
        else:
            seat.edgegap.on_address_change(now)
        self.table.bind_native(seat, binding, addr, port, now)
        self._joined(seat, "seat_joined" if used_edgegap else "seat_changed", now)

    def move(self, seat: Seat, addr: Address, port: int, now: float) -> None:
        """The player has proved that it is at another address now."""
        seat.binding.on_address_change(now)
        self.table.move(seat, addr, port)
        seat.moved_at = now
        self._report(seat, "seat_moved", now)
        self._notify(seat, Notice(NoticeCode.MOVED, address=ip_and_port(addr)), seat)

    def leave(self, seat: Seat, reason: Reason, now: float, text: str = "") -> None:
        """Release the seat's connection, if it has one. Notify its player, unless it left by itself, and the others.
        `text`: for the player's log."""
        if seat.addr is None:
            return
        self._report(seat, "seat_left", now, reason)
        if reason in _FINAL_NOTICES:
            self._notify_repeatedly(seat, Notice(_FINAL_NOTICES[reason], text), seat, now)
        self.table.unbind(seat)
        if reason != "timeout":
            self._connection_ids.retire(seat)
        if reason != "ended" and not seat.revoked:
            self._roster_changed(seat.session)
            self._notify_others(seat, NoticeCode.LEFT)

    def announce_roster(self, session: Session, now: float) -> None:
        """Seats were removed, or direct modes changed, which ends direct paths: send each player the whole roster three
        times, with the state at the time of each copy. Further changes meanwhile are in the next one, so the number of
        packets does not grow with the number of changes."""
        self._roster_changed(session)
        if session.roster_announced is None:
            self._send_roster_to_all(session)
            self.timers.add(now + ROSTER_TICK, self._announce_again, session)
            session.roster_announced = 0
        else:
            session.roster_announced = -1  # the next tick sends the first copy

    def _announce_again(self, session: Session, now: float) -> None:
        if session.ended or session.roster_announced is None:
            return
        session.roster_announced = ticks = session.roster_announced + 1
        if ticks == 0 or ticks in ROSTER_COPIES:
            self._send_roster_to_all(session)
        if ticks >= ROSTER_COPIES[-1]:
            session.roster_announced = None
        else:
            self.timers.add(now + ROSTER_TICK, self._announce_again, session)

    def notify_all(self, code: NoticeCode) -> None:
        """Notify every native player of every session."""
        for binding in self.table.by_connection.values():
            self._notify(binding.seat, Notice(code), binding.seat)

    def send_roster(self, seat: Seat) -> None:
        """Queue the whole roster: the player has missed a notice."""
        self._notify(seat, _roster(seat.session), seat)

    def _send_roster_to_all(self, session: Session) -> None:
        roster = _roster(session)
        for seat in session.seats.values():
            if _is_proven(seat):
                self._notify(seat, roster, seat)

    def _joined(self, seat: Seat, kind: Kind, now: float) -> None:
        self._report(seat, kind, now)
        if kind == "seat_joined":
            self._roster_changed(seat.session)
            self._notify_others(seat, NoticeCode.JOINED)
        self.watch_silence(seat, now)

    def watch_silence(self, seat: Seat, now: float) -> None:
        """From now on, the connected seat is released when it has been silent for too long."""
        if seat.check_at <= now:
            self._check_silence(seat, now)

    def _check_silence(self, seat: Seat, now: float) -> None:
        if seat.addr is None:
            return
        self.table.mirror.refresh(seat)
        silent_at = seat.last_received + self.config.timeout
        if silent_at <= now:
            self.leave(seat, "timeout", now)
        else:
            seat.check_at = silent_at
            self.timers.add(silent_at, self._check_silence, seat)

    def _notify(self, seat: Seat, notice: Notice, about: Seat) -> None:
        """Queue a NOTICE, if the seat is connected in a dialect that has one."""
        if seat.addr is None:
            return
        datagram = seat.binding.encode_notice(about.number, notice)
        if datagram is not None:
            self.counters.answers["notice"] += 1
            self.outbox.append((seat.port, datagram, seat.addr))

    def _notify_repeatedly(self, seat: Seat, notice: Notice, about: Seat, now: float) -> None:
        """Queue a NOTICE that must not be lost, and the same datagram twice more: its receiver drops the copies, as
        replays."""
        sent = len(self.outbox)
        self._notify(seat, notice, about)
        for outgoing in self.outbox[sent:]:
            for delay in NOTICE_REPEATS:
                self.timers.add(now + delay, self._send_again, outgoing)

    def _send_again(self, outgoing: Outgoing, now: float) -> None:
        self.counters.answers["notice"] += 1
        self.outbox.append(outgoing)

    def _roster_changed(self, session: Session) -> None:
        session.roster_generation = (session.roster_generation + 1) & 0xFFFFFFFF

    def _notify_others(self, about: Seat, code: NoticeCode) -> None:
        """Players who have only sent a CONNECT receive the roster after their first PING: the source address of a
        CONNECT may be forged, and one CONNECT would cause a packet to that address for each other seat."""
        notice = Notice(code, generation=about.session.roster_generation)
        for seat in self.others(about):
            self._notify(seat, notice, about)

    def notify_relay_changed(self, about: Seat) -> int:
        """Its player sends on its leg to this node. Returns the number of players that were notified."""
        if about.addr is None:
            return 0
        notice, others = Notice(NoticeCode.CHANGED_RELAY), self.others(about)
        for seat in others:
            self._notify(seat, notice, about)
        return len(others)

    def report_changed(self, seat: Seat, now: float) -> None:
        """What the next process needs of the seat has changed."""
        self._report(seat, "seat_changed", now)

    def _report(self, seat: Seat, kind: Kind, now: float, reason: Reason = "") -> None:
        self.events.append(Event(now, seat.session.name, seat.number, kind, seat.binding.dialect, reason))


def connected_seats(session: Session) -> frozenset[int]:
    """The roster of the session: the numbers of the connected seats."""
    return frozenset(seat.number for seat in session.seats.values() if seat.addr is not None)


def _roster(session: Session) -> Notice:
    seats = session.seats.values()
    modes = {mode: frozenset(seat.number for seat in seats if seat.effective_mode is mode) for mode in DirectMode}
    return Notice(
        NoticeCode.ROSTER,
        generation=session.roster_generation,
        connected=connected_seats(session),
        removed=frozenset(seat.number for seat in seats if seat.revoked),
        relayed=modes[DirectMode.RELAY_ONLY],
        asking=modes[DirectMode.ASK],
    )


def _is_proven(seat: Seat) -> bool:
    return seat.addr is not None and seat.binding.is_proven

"""Where seats meet: what one of them sends, in any dialect, reaches another in its own; they join, move and leave.

Knows sessions and seats. Of bytes it knows only what stands before a payload in each dialect.
"""

from collections import deque

from causeway_client.protocol.packets import Notice, NoticeCode, PacketType

from .addresses import Address, Outgoing, ip_and_port
from .counters import Counters
from .dialects import connection_ids
from .events import Dialect, Event, Kind, Reason
from .limits import Budget
from .relay_config import RelayConfig
from .seats import Link, Mirror, Random, Seat, SeatTable
from .timers import Deadlines

_DATA = int(PacketType.DATA)
_EDGEGAP_DATA = b"\x02"
_LAST_WORDS = {"revoked": NoticeCode.REVOKED, "ended": NoticeCode.ENDED}


class Exchange:
    def __init__(self, config: RelayConfig, random: Random, mirror: Mirror | None = None) -> None:
        self.config = config
        self.random = random
        self.table = SeatTable(random, mirror)
        self.counters = Counters()
        self.deadlines = Deadlines()
        self.unauthenticated_replies = Budget(config.unauthenticated_replies)
        self.outbox: list[Outgoing] = []
        self.events: deque[Event] = deque()

    # -- payloads

    def deliver(self, source: Seat, target: Seat | None, payload: bytes, now: float) -> Outgoing | None:
        """What brings `payload` to `target`; None, and counted, when it cannot be reached."""
        if target is None or (addr := target.addr) is None:
            return self.counters.drop("peer_absent")
        link = target.link
        if link is not None:
            datagram = link.seal(_DATA, source.number, payload)
        elif target.number == 0:
            datagram = (source.prefix or self._settle_connection_id(source, payload, now)) + payload
        elif source.number == 0:
            datagram = _EDGEGAP_DATA + payload
        else:
            # An edgegap player takes all it gets for its host's.
            return self.counters.drop("not_allowed")
        counters = self.counters
        counters.forwarded_packets += 1
        counters.forwarded_bytes += len(datagram)
        return target.port, datagram, addr

    def others(self, source: Seat) -> list[Seat]:
        """Every connected seat of the session but the source: those who get copies.

        A native player that has only sent its CONNECT is left out: that may bear anyone's address, which many copies
        of one packet would flood. What it sends next shows that it has read the WELCOME there."""
        return [seat for seat in source.session.seats.values() if seat is not source and _is_proven(seat)]

    def deliver_to_all(self, source: Seat, targets: list[Seat], payload: bytes, now: float) -> Outgoing | None:
        """Queue a copy for each."""
        if not targets:
            return self.counters.drop("peer_absent")
        for target in targets:
            outgoing = self.deliver(source, target, payload, now)
            if outgoing is not None:
                self.outbox.append(outgoing)
        return None

    def _settle_connection_id(self, source: Seat, payload: bytes, now: float) -> bytes:
        former = source.connection_id
        prefix = connection_ids.settle(self.table, source, payload, self.random)
        if source.connection_id != former:
            self._report(source, "seat_changed", now)
        return prefix

    def over_limit(self, seat: Seat, now: float) -> Outgoing | None:
        """A packet of the seat's was more than a quota allows: drop it and say so, once a second."""
        link = seat.link
        if link is not None and now - link.told_over_quota_at >= 1.0:
            link.told_over_quota_at = now
            self._notify(seat, Notice(NoticeCode.OVER_QUOTA), seat)
        return self.counters.drop("rate_limited")

    # -- presence

    def join(self, seat: Seat, addr: Address, port: int, now: float) -> None:
        """An edgegap player that was not connected now is."""
        if seat.former_addr != addr:
            connection_ids.address_changed(self.table, seat, now)
        self.table.bind(seat, addr, port, now)
        self._joined(seat, "seat_joined", now)

    def join_link(self, seat: Seat, link: Link, addr: Address, port: int, now: float) -> None:
        """A native player connected: for the first time, anew, or in place of the edgegap dialect."""
        kind: Kind = "seat_joined" if seat.link is None else "seat_changed"
        if seat.addr is not None and seat.link is None:
            self.table.retire_connection_id(seat)
        else:
            connection_ids.address_changed(self.table, seat, now)
        self.table.bind_link(seat, link, addr, port, now)
        self._joined(seat, kind, now)

    def move(self, seat: Seat, addr: Address, port: int, now: float) -> None:
        """The player proved that it is at another address now."""
        if seat.link is None:
            connection_ids.address_changed(self.table, seat, now)
        self.table.move(seat, addr, port)
        seat.moved_at = now
        self._report(seat, "seat_moved", now)
        self._notify(seat, Notice(NoticeCode.MOVED, address=ip_and_port(addr)), seat)

    def leave(self, seat: Seat, reason: Reason, now: float) -> None:
        """Free the seat's connection, if it has one; tell the player (when it did not choose to go) and the others."""
        if seat.addr is None:
            return
        self._report(seat, "seat_left", now, reason)
        if reason in _LAST_WORDS:
            self._notify(seat, Notice(_LAST_WORDS[reason]), seat)
        self.table.unbind(seat)
        if reason != "timeout":
            self.table.retire_connection_id(seat)
        if reason != "ended":
            self._notify_others(seat, NoticeCode.LEFT)

    def notify_all(self, code: NoticeCode) -> None:
        """Tell every native player of every session."""
        for link in self.table.by_connection.values():
            self._notify(link.seat, Notice(code), link.seat)

    def _joined(self, seat: Seat, kind: Kind, now: float) -> None:
        self._report(seat, kind, now)
        if kind == "seat_joined":
            self._notify_others(seat, NoticeCode.JOINED)
        if seat.check_at <= now:
            self._check_silence(seat, now)

    def _check_silence(self, seat: Seat, now: float) -> None:
        if seat.addr is None:
            return
        self.table.mirror.refresh(seat)
        silent_at = seat.last_heard + self.config.timeout
        if silent_at <= now:
            self.leave(seat, "timeout", now)
        else:
            seat.check_at = silent_at
            self.deadlines.add(silent_at, self._check_silence, seat)

    def _notify(self, seat: Seat, notice: Notice, about: Seat) -> None:
        """Queue a NOTICE, if the seat has a native connection."""
        if seat.link is not None and seat.addr is not None:
            self.counters.answers["notice"] += 1
            self.outbox.append((seat.port, seat.link.seal(PacketType.NOTICE, about.number, notice.encode()), seat.addr))

    def _notify_others(self, about: Seat, code: NoticeCode) -> None:
        """Of players who have only sent a CONNECT, which may bear anyone's address, the notice waits for a packet more:
        or one CONNECT would have a packet sent there for each other seat."""
        for seat in about.session.seats.values():
            if seat.link is None or seat is about:
                continue
            if _is_proven(seat):
                self._notify(seat, Notice(code), about)
            else:
                seat.link.missed.add(about.number)

    def notify_missed(self, link: Link) -> None:
        """The player showed that it reads what is sent to it: queue the notices that waited, as things are now."""
        for number in sorted(link.missed):
            about = link.seat.session.seats.get(number)
            if about is not None:
                code = NoticeCode.LEFT if about.addr is None else NoticeCode.JOINED
                self._notify(link.seat, Notice(code), about)
        link.missed.clear()

    def _report(self, seat: Seat, kind: Kind, now: float, reason: Reason = "") -> None:
        dialect: Dialect = "edgegap" if seat.link is None else "native"
        self.events.append(Event(now, seat.session.name, seat.number, kind, dialect, reason))


def _is_proven(seat: Seat) -> bool:
    return seat.addr is not None and (seat.link is None or seat.link.totals()[1] > 0)

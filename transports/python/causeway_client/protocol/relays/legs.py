"""The legs of a player: which one carries what, and how it changes from one relay to another (PROTOCOL.md 14)."""

import functools
import math
from collections import deque
from collections.abc import Callable, Hashable

from .. import events
from ..errors import DecodeError
from ..offers import ChangeReason, Offer, OfferAck, OfferKind, decode_offer, offered_seat_key
from ..packets import EVERYONE, PacketType
from ..paths.candidates import IpPort, reachable_first
from .change_report import ChangeReport
from .failure_detection import FailureDetector, Verdict
from .leg_factory import LegFactory
from .relay_leg import Lost, RelayLeg
from .standby_relay import StandbyRelay

Address = Hashable

MAX_LISTENING = 30.0  # seconds on the old leg after a planned change
SECONDS_PER_OFFER, OFFERS_AT_ONCE = 1.0, 10
FALL_BACK_AFTER = 0.5  # seconds that the active relay has to answer, when the network works again
JOIN_STANDBY_AFTER = 1.0  # seconds without a WELCOME of the first relay
_MASK = 0xFFFFFFFF
_BY_PEER = frozenset((PacketType.DATA, PacketType.SIGNAL, PacketType.RENDEZVOUS, PacketType.PEER))


class Legs:
    """`changed(now)` is called after the active leg has changed. `reconnect_timeout`: seconds for which a lost leg
    tries to connect again."""

    def __init__(
        self,
        first: RelayLeg,
        factory: LegFactory,
        *,
        offer_key: bytes,
        standby: StandbyRelay | None,
        reconnect_timeout: float,
        hosts: Callable[[], list[IpPort]],
        changed: Callable[[float], None],
        emitted: deque[events.Event],
    ) -> None:
        self.active = first
        self.standby: RelayLeg | None = None
        self.detector = FailureDetector()
        self._factory = factory
        factory.legs = self
        self._offer_key = offer_key
        self._credentials = standby if offer_key else None
        self._reconnect_timeout = reconnect_timeout
        self._hosts = hosts
        self._changed = changed
        self._emitted = emitted
        self._leg_of: dict[int, tuple[int, RelayLeg]] = {}  # by seat: the latest end-to-end number, and where it came
        self._report: ChangeReport | None = None  # of the last change
        self._changes = 0
        self._move_until: float | None = None  # a planned move to the standby leg; its deadline
        self._leaving_until: float | None = None  # the standby leg is the old one of a planned move
        self._after_leaving: Offer | None = None
        self._offer = OfferAck(0, True)  # the answer to the last one
        self._offers_at = -math.inf  # a token bucket
        self._join_standby_at = math.inf
        self._fall_back_at = math.inf  # when the standby leg, which answers, replaces the active one, which does not
        self._ready: RelayLeg | None = None  # the standby leg that was reported as ready

    @property
    def seats(self) -> set[int]:
        """The other players with a leg to one of the relays."""
        seats = self.active.roster.seats
        return seats if self.standby is None else seats | self.standby.roster.seats

    def leg_from(self, addr: Address) -> RelayLeg | None:
        """The leg to the node with this address."""
        if self.active.is_from(addr):
            return self.active
        return self.standby if self.standby is not None and self.standby.is_from(addr) else None

    def rebind(self, now: float) -> None:
        """The adapter's sockets have other addresses."""
        for leg in filter(None, (self.active, self.standby)):
            leg.rebind(self._hosts(), now)

    def close(self, code: int, reason: str) -> None:
        """This player leaves."""
        for leg in filter(None, (self.active, self.standby)):
            leg.close(code, reason)

    def stop(self) -> None:
        """Nothing is sent any more."""
        for leg in filter(None, (self.active, self.standby)):
            leg.stop()
        self._join_standby_at, self._fall_back_at, self._report, self._move_until = math.inf, math.inf, None, None

    # -- the standby leg

    @property
    def is_standby_usable(self) -> bool:
        leg = self.standby
        return leg is not None and leg.is_ready and not self.is_leaving

    def connect(self, now: float) -> None:
        """The first CONNECT was sent: if it is not answered, the standby relay is tried as well."""
        self._join_standby_at = now + JOIN_STANDBY_AFTER if self._credentials else math.inf

    def join_standby(self, now: float) -> None:
        """With the credentials that were given with the session's, if they were not used yet."""
        given, self._credentials, self._join_standby_at = self._credentials, None, math.inf
        if given is not None and self.standby is None:
            key = offered_seat_key(self._offer_key, given.connect_token)
            node, second = reachable_first(self._hosts(), given.node, given.second_node)
            self._begin(self._factory.new(node, second, given.connect_token, key), now)

    def _has_moved(self) -> bool:
        """The session has moved to the standby leg's relay while this player was away."""
        active, standby = self.active.connection, self.standby.connection if self.standby else None
        if active is None or standby is None or self._move_until is not None or standby.welcome.is_standby:
            return False
        return standby.welcome.epoch > active.welcome.epoch

    def _wait_for_standby(self, now: float) -> bool:
        """The active leg has ended. Whether there is a standby relay, to which the player is not connected yet: its leg
        is the active one from now on."""
        self.join_standby(now)
        if self.standby is None or self.is_leaving:
            return False
        self.active, self.standby = self.standby, None
        self.active.set_standby(False, now)
        return True

    def standby_answers(self, now: float) -> None:
        """A packet has arrived on the standby leg."""
        if self.standby is not None and self.is_standby_usable:
            if self._ready is not self.standby:
                self._ready = self.standby
                self._emitted.append(events.StandbyReady(self.standby.node))
            self.move_if_possible(now)
            if self._has_moved():
                self.change(ChangeReason.EPOCH, now)
            elif not self.active.is_connected and math.isinf(self._fall_back_at):
                # The fault may have been this player's network: the active relay is asked again first.
                self._fall_back_at = now + FALL_BACK_AFTER
                self.active.rebind(self._hosts(), now)

    def _begin(self, leg: RelayLeg, now: float) -> None:
        self.standby = leg
        leg.set_standby(True, now)
        leg.join(self._reconnect_timeout, now)

    def drop_standby(self, reason: str) -> None:
        """The leg has ended, or is not wanted any more."""
        leg, self.standby = self.standby, None
        was_leaving, self._leaving_until, self._move_until = self.is_leaving, None, None
        if leg is None:
            return
        leg.stop()
        self._leg_of = {seat: latest for seat, latest in self._leg_of.items() if latest[1] is not leg}
        leg.roster.clear()
        if not was_leaving:
            self._emitted.append(events.StandbyLost(leg.node, reason))

    def _close_standby(self, reason: str) -> None:
        if self.standby is not None:
            self.standby.close(0, reason)
            self.drop_standby(reason)

    # -- which leg carries what

    def send(self, kind: int, seat: int, body: bytes) -> bool:
        """False: there is no connection now."""
        if self.standby is None or kind not in _BY_PEER:
            return self.active.send(kind, seat, body)
        if seat != EVERYONE:
            return self._leg_to(seat).send(kind, seat, body)
        others = [each for each in self.standby.roster.seats if self._leg_to(each) is self.standby]
        if others and self.active.roster.seats.issubset(others):
            return self.standby.send(kind, EVERYONE, body)
        was_sent = self.active.send(kind, EVERYONE, body)
        for each in others:
            was_sent |= self.standby.send(kind, each, body)
        return was_sent

    def _leg_to(self, seat: int) -> RelayLeg:
        if self.is_leaving and seat in self.active.roster.seats:
            return self.active  # else two players that change at the same time keep each other on the old leg
        _, latest = self._leg_of.get(seat, (0, self.active))
        if latest is not self.active and latest.is_ready and seat in latest.roster.seats:
            return latest
        standby = self.standby
        if seat in self.active.roster.seats or standby is None or not standby.is_ready:
            return self.active
        return standby if seat in standby.roster.seats else self.active

    def arrived(self, seat: int, leg: RelayLeg, number: int, now: float) -> None:
        """A payload of the player with this end-to-end number arrived on the leg."""
        if self.standby is None:
            return
        latest = self._leg_of.get(seat)
        if latest is None or 0 < (number - latest[0]) & _MASK <= _MASK // 2:
            self._leg_of[seat] = number, leg
        if leg is self.active and self._report is not None:
            self._emit(self._report.payload_arrived(now))

    def changed_relay(self, seat: int, leg: RelayLeg) -> None:
        """The node reports that the player sends on its leg to it."""
        number, _ = self._leg_of.get(seat, (0, leg))
        self._leg_of[seat] = number, leg

    # -- changing the active leg

    def change(self, reason: ChangeReason, now: float) -> None:
        """The standby leg becomes the active one."""
        new, old = self.standby, self.active
        if new is None:
            return
        if self._report is not None:
            self._emit(self._report.payload_arrived(now))
        self.active, self.standby = new, old
        self._move_until, self._fall_back_at = None, math.inf
        self._changes += 1
        self.detector.changed(now)
        self._ready = None
        silent_since = now if math.isinf(old.arrived_at) else old.arrived_at
        self._report = ChangeReport(
            self._changes, old.node, new.node, reason, silent_since, now, functools.partial(self._send_report, new)
        )
        new.set_standby(False, now)
        old.set_standby(True, now)
        if reason is ChangeReason.PLANNED:
            self._leaving_until = now + MAX_LISTENING
        else:
            self._leaving_until = None
            if reason is ChangeReason.ENDED:
                self.drop_standby("ended")
            else:
                old.join(self._reconnect_timeout, now)
        self._changed(now)

    def _send_report(self, leg: RelayLeg, body: bytes) -> None:
        leg.send(PacketType.RELAY_CHANGED, 0, body)

    def _emit(self, event: events.Event | None) -> None:
        if event is not None:
            self._emitted.append(event)

    def ended(self, leg: RelayLeg, reason: str, now: float) -> bool:
        """The node has ended the leg, or refuses the player. False: so the session has ended for the player."""
        leg.stop()
        if leg is self.standby:
            if self.is_leaving:
                self.end_leaving(now)
            else:
                self.drop_standby(reason)
        elif self.is_standby_usable:
            self.change(ChangeReason.ENDED, now)
        else:
            return self._wait_for_standby(now)
        return True

    def sent(self, now: float) -> None:
        """The game sends."""
        if self.standby is not None:
            self.detector.sent(now)

    def refused(self, addr: Address) -> None:
        """An ICMP message says that the port is closed."""
        if self.active.is_from(addr):
            self.detector.refused()

    # -- offers

    def receive_offer(self, leg: RelayLeg, body: bytes, now: float) -> None:
        """Raises DecodeError."""
        offer = decode_offer(body)
        if offer.id > self._offer.id:
            self._count_offer(now)
            self._offer = OfferAck(offer.id, bool(self._offer_key) and self._accept(leg, offer, now))
        leg.send(PacketType.OFFER_ACK, 0, OfferAck(offer.id, self._offer.is_accepted).encode())

    def _count_offer(self, now: float) -> None:
        """A node must not use its players to flood other addresses with CONNECTs. Raises DecodeError."""
        offers_at = max(self._offers_at, now - OFFERS_AT_ONCE * SECONDS_PER_OFFER) + SECONDS_PER_OFFER
        if offers_at > now:
            raise DecodeError("rate_limited")
        self._offers_at = offers_at

    def _accept(self, leg: RelayLeg, offer: Offer, now: float) -> bool:
        key = offered_seat_key(self._offer_key, offer.token)
        if offer.kind is OfferKind.TOKEN:
            leg.renew(offer.token, key, now)
            return True
        second = (offer.second_ip, offer.port) if offer.second_ip else None
        node, second_node = reachable_first(self._hosts(), (offer.ip, offer.port), second)
        families = {":" in ip for ip, _ in self._hosts()}
        if families and isinstance(node, tuple) and (":" in node[0]) not in families:
            return False
        if self.active.is_from(node):
            self.active.renew(offer.token, key, now)
            return True
        if self.standby is not None and self.standby.is_from(node):
            self.standby.renew(offer.token, key, now)
            self._leaving_until = None  # the session returns to it
            if not self.standby.is_connected and not self.standby.is_joining:
                self.standby.join(self._reconnect_timeout, now)
        elif offer.kind is OfferKind.STANDBY and self.is_leaving:
            self._after_leaving = offer
            return True
        else:
            self._close_standby("replaced")
            self._begin(self._factory.new(node, second_node, offer.token, key), now)
        if offer.kind is OfferKind.MOVE:
            self._move_until = now + offer.deadline / 1000
        return True

    # -- time

    def next_timer(self) -> float:
        due = min(self.active.next_timer(), self._join_standby_at, self._fall_back_at)
        if self._report is not None:
            due = min(due, self._report.next_timer())
        if self.standby is not None:
            due = min(due, self.standby.next_timer())
            if self._leaving_until is not None:
                due = min(due, self._leaving_until)
            elif self.standby.is_ready and self.active.is_connected:
                due = min(due, self.detector.next_timer(self.active))
                if self._move_until is not None:
                    due = min(due, self._move_until)
        return due

    def handle_timer(self, now: float) -> Lost | None:
        """What has happened to the active leg, if the standby leg cannot replace it."""
        if now >= self._join_standby_at:
            self.join_standby(now)
        if self._report is not None:
            self._emit(self._report.handle_timer(now))
        if now >= self._fall_back_at:
            self._fall_back(now)
        lost = self._handle_standby(now)
        if self.standby is not None and lost is not None:
            self.drop_standby(lost.value)
        self.move_if_possible(now)
        if self.is_standby_usable and self.active.is_connected and self.standby is not None:
            match self.detector.check(self.active, self.standby, now):
                case Verdict.PING:
                    self.active.ping(now)
                    self.standby.ping(now)
                case Verdict.CHANGE:
                    is_refused = self.detector.is_refused
                    self.change(ChangeReason.REFUSED if is_refused else ChangeReason.SILENT, now)
        failed = self.active.handle_timer(now)
        if failed is Lost.SILENT and self.is_standby_usable:
            self.change(ChangeReason.SILENT, now)
            return None
        return failed

    def _fall_back(self, now: float) -> None:
        """The standby relay answers, and the active one does not."""
        self._fall_back_at = math.inf
        if not self.active.is_connected and self.standby is not None and self.standby.is_connected:
            self.change(ChangeReason.SILENT, now)

    def _handle_standby(self, now: float) -> Lost | None:
        leg = self.standby
        if leg is None:
            return None
        if self._leaving_until is not None and now >= self._leaving_until:
            self.end_leaving(now)
            return None
        lost = leg.handle_timer(now)
        if lost is Lost.SILENT:
            if self.is_leaving:
                self.end_leaving(now)
            else:
                leg.join(self._reconnect_timeout, now)
            return None
        return lost

    def end_leaving(self, now: float) -> None:
        """The old leg of a planned move has ended; an offered standby relay takes its place."""
        self._close_standby("")
        offer, self._after_leaving = self._after_leaving, None
        if offer is not None:
            self._accept(self.active, offer, now)

    @property
    def is_leaving(self) -> bool:
        return self._leaving_until is not None

    def move_if_possible(self, now: float) -> None:
        """The planned move, once every player of the old relay is at the new one, or after the deadline."""
        new = self.standby
        if self._move_until is None or new is None or not new.is_ready:
            return
        if now >= self._move_until or self.active.roster.seats <= new.roster.seats:
            self.change(ChangeReason.PLANNED, now)

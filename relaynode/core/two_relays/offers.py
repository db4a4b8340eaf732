"""OFFERs: credentials for another leg, repeated until their player acknowledges them (PROTOCOL.md 14.6).

A drain offers another relay to every player of a node at the same time. The OFFERs are spread over the ticks of a
timer, and first copies precede repetitions.
"""

import base64
import math
from collections import deque
from typing import TYPE_CHECKING

from causeway_client.protocol.offers import MAX_DEADLINE, Offer, OfferAck, OfferKind
from causeway_client.protocol.packets import PacketType
from nodeapi.grants import OFFER_KINDS, SeatOffer

from ..dialects.native_binding import NativeBinding

if TYPE_CHECKING:
    from ..forwarding import Forwarder
    from ..seats import Seat

INTERVAL = 0.45  # seconds between two copies; timers add 0.05 on average
MAX_COPIES = 20  # on one connection
BATCH = 250  # OFFERs of one call of the timer
TICK = 0.05  # seconds between two calls, to which a timer adds the rest of a tenth of a second

_OFFER = int(PacketType.OFFER)
_KINDS = {name: OfferKind(number) for number, name in enumerate(OFFER_KINDS, 1)}


class PendingOffer:
    """An offer that its player has not acknowledged yet."""

    __slots__ = ("connection", "copies", "document", "is_queued", "seat", "until")

    def __init__(self, seat: "Seat", document: SeatOffer, until: float) -> None:
        self.seat = seat
        self.document = document
        self.until = until  # the deadline of a move
        self.is_queued = False  # in one of the queues of Offers
        self.connection = 0  # on which it was sent last
        self.copies = 0  # sent on that connection

    def encode(self, now: float) -> bytes:
        document = self.document
        kind = _KINDS[document.kind]
        left = min(max(int((self.until - now) * 1000), 0), MAX_DEADLINE) if kind is OfferKind.MOVE else 0
        token = base64.urlsafe_b64decode(document.token)
        return Offer(document.id, kind, left, document.ip, document.second_ip, document.port, token).encode()


class Offers:
    def __init__(self, forwarder: "Forwarder") -> None:
        self._forwarder = forwarder
        # A seat's offer is in one of the queues at most.
        self._first: deque[PendingOffer] = deque()
        self._repeats: deque[tuple[float, PendingOffer]] = deque()  # (when it is due, offer), in this order
        self._timer_at = math.inf

    def granted(self, seat: "Seat", document: SeatOffer | None, now: float) -> None:
        """The grant has this offer for the seat. An offer is the same one for as long as it has the same id."""
        if document is None or document.id == seat.acknowledged_offer or seat.session.admits_edgegap:
            seat.offer = None
        elif seat.offer is None or seat.offer.document.id != document.id:
            seat.offer = PendingOffer(seat, document, now + document.deadline_ms / 1000)
            self.start(seat, now)

    def start(self, seat: "Seat", now: float) -> None:
        """Send the seat's offer to its player, if that has not begun on its present connection. The address of a
        connection is verified by the player's first packet, so this is called for each PING."""
        offer, binding = seat.offer, seat.binding
        if offer is None or not isinstance(binding, NativeBinding):
            return
        if offer.connection == binding.id or not binding.is_proven:
            return
        offer.connection, offer.copies = binding.id, 0
        if not offer.is_queued:
            offer.is_queued = True
            self._first.append(offer)
            self._set_timer(now)

    def acknowledge(self, seat: "Seat", ack: OfferAck, now: float) -> None:
        offer = seat.offer
        if offer is None or ack.id != offer.document.id:
            return
        seat.offer, seat.acknowledged_offer = None, ack.id
        self._forwarder.counters.offers["accepted" if ack.is_accepted else "not_accepted"] += 1
        self._forwarder.report_changed(seat, now)

    def _set_timer(self, earliest: float) -> None:
        if not self._first and not self._repeats:
            return
        at = earliest if self._first else max(self._repeats[0][0], earliest)
        if at < self._timer_at:
            self._timer_at = at
            self._forwarder.timers.add(at, self._send_batch, at)

    def _send_batch(self, at: float, now: float) -> None:
        if at != self._timer_at:
            return  # an earlier timer was set afterwards
        self._timer_at = math.inf
        for _ in range(BATCH):
            if self._first:
                self._send(self._first.popleft(), now)
            elif self._repeats and self._repeats[0][0] <= now:
                self._send(self._repeats.popleft()[1], now)
            else:
                break
        self._set_timer(now + TICK)

    def _send(self, offer: PendingOffer, now: float) -> None:
        seat = offer.seat
        binding = seat.binding
        offer.is_queued = False
        if seat.offer is not offer or seat.addr is None:
            return
        if not isinstance(binding, NativeBinding) or binding.id != offer.connection:
            return  # the player's first PING on its new connection starts again
        self._forwarder.counters.answers["offer"] += 1
        self._forwarder.outbox.append((seat.port, binding.seal(_OFFER, 0, offer.encode(now)), seat.addr))
        offer.copies += 1
        if offer.copies < MAX_COPIES:
            offer.is_queued = True
            self._repeats.append((now + INTERVAL, offer))

"""Ping and pong -> round trip, jitter, loss. The estimates of a leg, and the machine that measures a node."""

import math
import statistics
from collections import Counter, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from itertools import pairwise

from . import packets
from .errors import DecodeError
from .events import Event
from .proofs import RoundTripProof

Address = Hashable

SMALL, LARGE = packets.MIN_PROBE, 1000  # bytes: some networks lose only large packets


class RoundTrip:
    """Smoothed round trip and its jitter, in seconds; None until the first sample.

    Gain 1/8 for the round trip (RFC 6298, 2.3) and 1/16 for the jitter (RFC 3550, 6.4.1)."""

    __slots__ = ("_last", "jitter", "smoothed")

    def __init__(self) -> None:
        self.smoothed: float | None = None
        self.jitter = 0.0
        self._last = 0.0

    def add(self, sample: float) -> None:
        """`sample` in seconds."""
        if self.smoothed is None:
            self.smoothed = sample
        else:
            self.smoothed += (sample - self.smoothed) / 8
            self.jitter += (abs(sample - self._last) - self.jitter) / 16
        self._last = sample


class Loss:
    """The share of packets lost in one direction, from two growing counts. Older packets weigh less."""

    KEEP = 0.8  # what an interval still weighs one interval later
    __slots__ = ("_arrived_total", "_lost", "_sent", "_sent_total")

    def __init__(self) -> None:
        self._sent = self._lost = 0.0
        self._sent_total = self._arrived_total = 0

    @property
    def share(self) -> float:
        """0.0 to 1.0."""
        return min(1.0, max(0.0, self._lost / self._sent)) if self._sent else 0.0

    def update(self, sent_total: int, arrived_total: int) -> None:
        """Both count from the start of the connection. A report older than the last one is ignored."""
        sent = sent_total - self._sent_total
        arrived = arrived_total - self._arrived_total
        if sent <= 0 or arrived < 0:
            return
        self._sent = self._sent * self.KEEP + sent
        self._lost = self._lost * self.KEEP + sent - arrived
        self._sent_total, self._arrived_total = sent_total, arrived_total


@dataclass(frozen=True, slots=True)
class Measurement(Event):
    """What a Prober found. Times in milliseconds, None when nothing came back; `loss` 0.0 to 1.0, of the probes that
    the node did not refuse."""

    rtt_ms: float | None
    jitter_ms: float | None
    loss: float
    proof: bytes = b""  # of the shortest round trip, signed by the node (PROTOCOL.md 11.1); empty: the node signs none


MAX_CONSECUTIVE_REFUSALS = 5  # in a row for a node that refuses probes; then what was measured so far has to do


class Prober:
    """Measures one node before there is a session (PROTOCOL.md 11): `count` PROBEs, `interval` seconds apart, then
    one Measurement as soon as all are answered, `reply_timeout` seconds after the last PROBE, or `timeout` seconds
    after the start, whichever is first. The round trip is the median, the jitter the mean difference between
    consecutive round trips. Every other PROBE is large; `loss` is that of the size with the higher loss.

    Many players may share an address, of which a node answers so many probes a second. One that it refuses is sent
    again later, and is no loss (PROTOCOL.md 11.2)."""

    def __init__(
        self,
        node: Address,
        *,
        random: Callable[[int], bytes],
        count: int = 5,
        interval: float = 0.1,
        reply_timeout: float = 1.0,
        timeout: float = 20.0,
    ) -> None:
        self.node = node
        self.dropped: Counter[str] = Counter()
        self._random = random
        self._interval = interval
        self._reply_timeout = reply_timeout
        self._timeout = timeout
        self._to_send = deque(LARGE if number % 2 else SMALL for number in range(count))
        self._timer: float | None = None
        self._finish_at = 0.0
        self._pending: dict[bytes, tuple[float, int]] = {}  # nonce -> when it was sent, and of what size
        self._samples: list[float] = []
        self._arrived = {SMALL: 0, LARGE: 0}
        self._refused_at: float | None = None
        self._waits = 0  # since the last answer
        self._proving: set[bytes] = set()  # nonces whose replies were answered at once, for a proof
        self._shortest = math.inf  # round trip of which a proof was asked
        self._proved: packets.ProbeReply | None = None
        self._outgoing: list[tuple[bytes, Address]] = []
        self._events: deque[Event] = deque()

    def start(self, now: float) -> None:
        self._timer, self._finish_at = now, now + self._timeout
        self.handle_timer(now)

    def receive_datagram(self, data: bytes, addr: Address, now: float) -> None:
        """Raises nothing, whatever the bytes."""
        try:
            self._receive(data, now)
        except DecodeError as error:
            self.dropped[error.reason] += 1
        if self._timer is not None and not (self._to_send or self._pending or self._proving):
            self._finish()

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Address]]:
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def next_timer(self) -> float | None:
        return self._timer

    def handle_timer(self, now: float) -> None:
        if self._timer is None or now < self._timer:
            return
        if self._to_send and now < self._finish_at:
            self._probe(now)
        else:
            self._finish()

    def next_event(self) -> Event | None:
        return self._events.popleft() if self._events else None

    def _receive(self, data: bytes, now: float) -> None:
        match data[0] if data else None:
            case packets.PacketType.PROBE_REPLY:
                self._answered(packets.decode_probe_reply(data), now)
            case packets.PacketType.PROBE_REFUSED:
                self._refused(packets.decode_probe_refused(data), now)
            case _:
                raise DecodeError("unknown_type")

    def _answered(self, reply: packets.ProbeReply, now: float) -> None:
        if reply.nonce in self._pending:
            sent_at, size = self._pending.pop(reply.nonce)
            self._arrived[size] += 1
            self._waits = 0
            self._ask_for_proof(reply, now - sent_at)
            self._samples.append(now - sent_at)
        elif reply.nonce in self._proving and reply.round_trip:
            self._proving.discard(reply.nonce)
            if self._proved is None or reply.round_trip < self._proved.round_trip:
                self._proved = reply
        else:
            raise DecodeError("unknown_nonce")

    def _ask_for_proof(self, reply: packets.ProbeReply, took: float) -> None:
        """Answer the shortest so far at once: the node measures it then, and signs."""
        if any(reply.proof) and took < self._shortest:
            self._shortest = took
            self._proving.add(reply.nonce)
            self._outgoing.append((packets.Probe(reply.nonce, time=reply.time, proof=reply.proof).encode(), self.node))

    def _refused(self, refused: packets.ProbeRefused, now: float) -> None:
        """Send another in its place, but not before others had their turn."""
        if refused.nonce in self._proving:
            self._proving.discard(refused.nonce)
            self._shortest = math.inf
        elif refused.nonce in self._pending:
            _, size = self._pending.pop(refused.nonce)
            self._to_send.append(size)
        else:
            raise DecodeError("unknown_nonce")
        if self._refused_at is None or now - self._refused_at > self._interval:  # else one of the same burst
            self._waits += 1
        self._refused_at = now
        if self._waits > MAX_CONSECUTIVE_REFUSALS:
            self._to_send.clear()
            self._set_timer(now + self._reply_timeout)
        elif self._to_send:
            share = int.from_bytes(self._random(2), "little") / 0x10000
            self._set_timer(now + max(share * refused.wait / 1000 * 2 ** (self._waits - 1), self._interval))

    def _probe(self, now: float) -> None:
        nonce = self._random(16)
        size = self._to_send.popleft()
        self._pending[nonce] = now, size
        self._outgoing.append((packets.Probe(nonce, size).encode(), self.node))
        self._set_timer(now + (self._interval if self._to_send else self._reply_timeout))

    def _set_timer(self, at: float) -> None:
        self._timer = min(at, self._finish_at)

    def _finish(self) -> None:
        self._timer = None
        self._events.append(self._measured())
        self._to_send.clear()
        self._pending.clear()
        self._proving.clear()

    def _measured(self) -> Measurement:
        if not self._samples:
            return Measurement(None, None, self._loss())
        steps = [abs(b - a) for a, b in pairwise(self._samples)]
        return Measurement(
            rtt_ms=statistics.median(self._samples) * 1000,
            jitter_ms=statistics.fmean(steps) * 1000 if steps else 0.0,
            loss=self._loss(),
            proof=_proof(self._proved),
        )

    def _loss(self) -> float:
        """Of the size that fares worse. Of what was sent before a refusal nobody knows why no answer came."""
        lost = {SMALL: 0, LARGE: 0}
        for sent_at, size in self._pending.values():
            lost[size] += self._refused_at is None or sent_at > self._refused_at
        sent = {size: lost[size] + self._arrived[size] for size in lost}
        return max((lost[size] / count for size, count in sent.items() if count), default=0.0)


def _proof(reply: packets.ProbeReply | None) -> bytes:
    if reply is None:
        return b""
    proof = RoundTripProof(reply.nonce, reply.time, reply.round_trip, reply.key_id, reply.address, reply.proof)
    return proof.encode()

"""Ping and pong -> round trip, jitter, loss. The estimates of a leg, and the machine that measures a node."""

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
class Measured(Event):
    """What a Prober found. Times in milliseconds, None when nothing came back; `loss` 0.0 to 1.0."""

    rtt_ms: float | None
    jitter_ms: float | None
    loss: float
    proof: bytes = b""  # of the shortest round trip, signed by the node (PROTOCOL.md 11.1); empty: the node signs none


class Prober:
    """Measures one node before there is a session (PROTOCOL.md 11): `count` PROBEs, `interval` seconds apart, then
    one Measured `patience` seconds after the last, or as soon as all were answered. The round trip is the median,
    the jitter the mean step between neighbours. Every other PROBE is large; `loss` is of the size that fares worse.

    A node answers 200 probes a second for a source: at an interval of 0.05 s, ten players who share an address."""

    def __init__(
        self,
        node: Address,
        *,
        random: Callable[[int], bytes],
        count: int = 5,
        interval: float = 0.1,
        patience: float = 1.0,
    ) -> None:
        self.node = node
        self.dropped: Counter[str] = Counter()
        self._random = random
        self._count = count
        self._interval = interval
        self._patience = patience
        self._sent = 0
        self._timer: float | None = None
        self._pending: dict[bytes, tuple[float, int]] = {}  # nonce -> when it was sent, and of what size
        self._samples: list[float] = []
        self._arrived = {SMALL: 0, LARGE: 0}
        self._proving: set[bytes] = set()  # nonces whose replies were answered at once, for a proof
        self._proved: packets.ProbeReply | None = None
        self._outgoing: list[tuple[bytes, Address]] = []
        self._events: deque[Event] = deque()

    def start(self, now: float) -> None:
        self._timer = now
        self.handle_timer(now)

    def receive_datagram(self, data: bytes, addr: Address, now: float) -> None:
        """Raises nothing, whatever the bytes."""
        try:
            reply = self._decode(data)
        except DecodeError as error:
            self.dropped[error.reason] += 1
            return
        if reply.nonce in self._pending:
            sent_at, size = self._pending.pop(reply.nonce)
            self._arrived[size] += 1
            self._answered(reply, now - sent_at)
        elif reply.nonce in self._proving and reply.round_trip:
            self._proving.discard(reply.nonce)
            if self._proved is None or reply.round_trip < self._proved.round_trip:
                self._proved = reply
        else:
            self.dropped["unknown_nonce"] += 1
        if len(self._samples) == self._count and not self._proving:
            self._finish()

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Address]]:
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def next_timer(self) -> float | None:
        return self._timer

    def handle_timer(self, now: float) -> None:
        if self._timer is None or now < self._timer:
            return
        if self._sent == self._count:
            self._finish()
        else:
            self._probe(now)

    def next_event(self) -> Event | None:
        return self._events.popleft() if self._events else None

    def _answered(self, reply: packets.ProbeReply, took: float) -> None:
        """Answer the shortest so far at once: the node measures it then, and signs."""
        if any(reply.proof) and took < min(self._samples, default=took + 1):
            self._proving.add(reply.nonce)
            self._outgoing.append((packets.Probe(reply.nonce, time=reply.time, proof=reply.proof).encode(), self.node))
        self._samples.append(took)

    def _probe(self, now: float) -> None:
        nonce = self._random(16)
        size = LARGE if self._sent % 2 else SMALL
        self._pending[nonce] = now, size
        self._outgoing.append((packets.Probe(nonce, size).encode(), self.node))
        self._sent += 1
        self._timer = now + (self._interval if self._sent < self._count else self._patience)

    @staticmethod
    def _decode(data: bytes) -> packets.ProbeReply:
        if not data or data[0] != packets.PacketType.PROBE_REPLY:
            raise DecodeError("unknown_type")
        return packets.decode_probe_reply(data)

    def _finish(self) -> None:
        self._timer = None
        self._pending.clear()
        self._proving.clear()
        self._events.append(self._measured())

    def _measured(self) -> Measured:
        if not self._samples:
            return Measured(None, None, 1.0)
        steps = [abs(b - a) for a, b in pairwise(self._samples)]
        return Measured(
            rtt_ms=statistics.median(self._samples) * 1000,
            jitter_ms=statistics.fmean(steps) * 1000 if steps else 0.0,
            loss=self._loss(),
            proof=_proof(self._proved),
        )

    def _loss(self) -> float:
        """Of the size that fares worse."""
        large = self._count // 2
        sent = {SMALL: self._count - large, LARGE: large}
        return max(1 - self._arrived[size] / count for size, count in sent.items() if count)


def _proof(reply: packets.ProbeReply | None) -> bytes:
    if reply is None:
        return b""
    proof = RoundTripProof(reply.nonce, reply.time, reply.round_trip, reply.key_id, reply.address, reply.proof)
    return proof.encode()

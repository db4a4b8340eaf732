"""Measuring round trip, jitter and loss: the estimates of a leg, and the machine that measures a node with PROBEs."""

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
    """The smoothed round trip and its jitter, in seconds; None before the first sample.

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

    KEEP = 0.8  # the weight of an interval, relative to the next one
    LONGEST = 1 << 24  # packets in an interval; the node skips more sequence numbers when it resumes a connection
    __slots__ = ("_arrived_total", "_lost", "_sent", "_sent_total")

    def __init__(self) -> None:
        self._sent = self._lost = 0.0
        self._sent_total = self._arrived_total = 0

    @property
    def share(self) -> float:
        """0.0 to 1.0."""
        return min(1.0, max(0.0, self._lost / self._sent)) if self._sent else 0.0

    def update(self, sent_total: int, arrived_total: int) -> None:
        """Both are totals since the start of the connection. A report older than the last one is ignored. If the node
        has resumed the connection (PROTOCOL.md 7), its totals begin anew."""
        sent = sent_total - self._sent_total
        arrived = arrived_total - self._arrived_total
        if sent <= 0:
            return
        if arrived >= 0 and sent <= self.LONGEST:
            self._sent = self._sent * self.KEEP + sent
            self._lost = self._lost * self.KEEP + sent - arrived
        self._sent_total, self._arrived_total = sent_total, arrived_total


@dataclass(frozen=True, slots=True)
class Measurement(Event):
    """The result of a Prober. Times are in milliseconds, None if no reply arrived. `loss` is 0.0 to 1.0, of the PROBEs
    that the node did not refuse."""

    rtt_ms: float | None
    jitter_ms: float | None
    loss: float
    proof: bytes = b""  # of the shortest round trip, signed by the node (PROTOCOL.md 11.1); empty if it signs none


MAX_CONSECUTIVE_REFUSALS = 5  # after these, the measurement ends with the samples so far


class Prober:
    """Measures one node before there is a session (PROTOCOL.md 11): `count` PROBEs, `interval` seconds apart, then
    one Measurement as soon as all are answered, `reply_timeout` seconds after the last PROBE, or `timeout` seconds
    after the start, whichever is first. The round trip is the median, the jitter the mean difference between
    consecutive round trips. Every other PROBE is large; `loss` is that of the size with the higher loss.

    A node limits the PROBEs per second of one address, which many players may share. A refused PROBE is replaced later,
    and does not count as lost (PROTOCOL.md 11.2)."""

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
        self._pending: dict[bytes, tuple[float, int]] = {}  # nonce -> (time sent, size)
        self._samples: list[float] = []
        self._arrived = {SMALL: 0, LARGE: 0}
        self._refused_at: float | None = None
        self._consecutive_refusals = 0  # since the last answer
        self._proving: set[bytes] = set()  # nonces of replies that were answered to request a proof
        self._shortest = math.inf  # the round trip for which a proof was requested
        self._proven: packets.ProbeReply | None = None
        self._outgoing: list[tuple[bytes, Address]] = []
        self._events: deque[Event] = deque()

    def start(self, now: float) -> None:
        self._timer, self._finish_at = now, now + self._timeout
        self.handle_timer(now)

    def receive_datagram(self, data: bytes, addr: Address, now: float) -> None:
        """Never raises."""
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
            self._consecutive_refusals = 0
            self._request_proof(reply, now - sent_at)
            self._samples.append(now - sent_at)
        elif reply.nonce in self._proving and reply.round_trip:
            self._proving.discard(reply.nonce)
            if self._proven is None or reply.round_trip < self._proven.round_trip:
                self._proven = reply
        else:
            raise DecodeError("unknown_nonce")

    def _request_proof(self, reply: packets.ProbeReply, took: float) -> None:
        """Answers the reply with the shortest round trip so far at once; the node measures this time and signs it."""
        if any(reply.proof) and took < self._shortest:
            self._shortest = took
            self._proving.add(reply.nonce)
            self._outgoing.append((packets.Probe(reply.nonce, time=reply.time, proof=reply.proof).encode(), self.node))

    def _refused(self, refused: packets.ProbeRefused, now: float) -> None:
        """Sends another PROBE in its place, after the remaining ones."""
        if refused.nonce in self._proving:
            self._proving.discard(refused.nonce)
            self._shortest = math.inf
        elif refused.nonce in self._pending:
            _, size = self._pending.pop(refused.nonce)
            self._to_send.append(size)
        else:
            raise DecodeError("unknown_nonce")
        if self._refused_at is None or now - self._refused_at > self._interval:  # otherwise a refusal of the same burst
            self._consecutive_refusals += 1
        self._refused_at = now
        if self._consecutive_refusals > MAX_CONSECUTIVE_REFUSALS:
            self._to_send.clear()
            self._set_timer(now + self._reply_timeout)
        elif self._to_send:
            share = int.from_bytes(self._random(2), "little") / 0x10000
            limit = refused.wait / 1000 * 2 ** (self._consecutive_refusals - 1)
            self._set_timer(now + max(share * limit, self._interval))

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
            proof=_proof(self._proven),
        )

    def _loss(self) -> float:
        """The loss of the size with the higher loss. PROBEs sent before the last refusal do not count, because the node
        may have ignored them."""
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

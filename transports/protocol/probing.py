"""Ping and pong -> round trip, jitter, loss. The estimates of a leg, and the machine that measures beacons."""

import statistics
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from itertools import pairwise

from . import packets
from .errors import DecodeError
from .events import Event

Address = Hashable


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
    __slots__ = ("_arrived", "_arrived_total", "_sent", "_sent_total")

    def __init__(self) -> None:
        self._sent = self._arrived = 0.0
        self._sent_total = self._arrived_total = 0

    @property
    def share(self) -> float:
        """0.0 to 1.0."""
        return min(1.0, max(0.0, 1 - self._arrived / self._sent)) if self._sent else 0.0

    def update(self, sent_total: int, arrived_total: int) -> None:
        """Both count from the start of the connection. A report older than the last one is ignored."""
        sent = sent_total - self._sent_total
        if sent <= 0 or arrived_total < self._arrived_total:
            return
        self._sent = self._sent * self.KEEP + sent
        self._arrived = self._arrived * self.KEEP + arrived_total - self._arrived_total
        self._sent_total, self._arrived_total = sent_total, arrived_total


@dataclass(frozen=True, slots=True)
class Measured(Event):
    """One beacon's result. Times in milliseconds, None when nothing came back; `loss` 0.0 to 1.0."""

    address: Address
    rtt_ms: float | None
    jitter_ms: float | None
    loss: float


class Prober:
    """Measures several beacons at once (PROTOCOL.md 11): `count` PROBEs to each, `interval` seconds apart, then
    one Measured for each after `timeout` more seconds, or sooner when all have answered.

    Pacing stays under the 20 a second that a node answers."""

    def __init__(
        self,
        addresses: Iterable[Address],
        *,
        random: Callable[[int], bytes],
        count: int = 5,
        interval: float = 0.1,
        timeout: float = 1.0,
    ) -> None:
        self.dropped: Counter[str] = Counter()
        self.done = False
        self._samples: dict[Address, list[float]] = {address: [] for address in addresses}
        self._random = random
        self._count = count
        self._interval = interval
        self._timeout = timeout
        self._rounds = 0
        self._next_round: float | None = None
        self._ends: float | None = None
        self._pending: dict[bytes, tuple[Address, float]] = {}
        self._outgoing: list[tuple[bytes, Address]] = []
        self._events: deque[Event] = deque()

    def start(self, now: float) -> None:
        self._next_round = now
        self.handle_timer(now)

    def receive_datagram(self, data: bytes, addr: Address, now: float) -> None:
        try:
            reply = self._decode(data)
        except DecodeError as error:
            self.dropped[error.reason] += 1
            return
        address, sent_at = self._pending.get(reply.nonce, (None, 0.0))
        if address != addr:
            self.dropped["unknown_nonce"] += 1
            return
        del self._pending[reply.nonce]
        self._samples[addr].append(now - sent_at)
        if self._rounds == self._count and not self._pending:
            self._finish()

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Address]]:
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def next_timer(self) -> float | None:
        return self._next_round if self._next_round is not None else self._ends

    def handle_timer(self, now: float) -> None:
        if self._next_round is not None and now >= self._next_round:
            self._probe_all(now)
        if self._ends is not None and now >= self._ends:
            self._finish()

    def next_event(self) -> Event | None:
        return self._events.popleft() if self._events else None

    def _probe_all(self, now: float) -> None:
        for address in self._samples:
            nonce = self._random(16)
            self._pending[nonce] = (address, now)
            self._outgoing.append((packets.Probe(nonce).encode(), address))
        self._rounds += 1
        if self._rounds < self._count:
            self._next_round = now + self._interval
        else:
            self._next_round, self._ends = None, now + self._timeout

    @staticmethod
    def _decode(data: bytes) -> packets.ProbeReply:
        if not data or data[0] != packets.PacketType.PROBE_REPLY:
            raise DecodeError("unknown_type")
        return packets.decode_probe_reply(data)

    def _finish(self) -> None:
        self.done, self._ends = True, None
        self._pending.clear()
        self._events.extend(self._measured(address, samples) for address, samples in self._samples.items())

    def _measured(self, address: Address, samples: list[float]) -> Measured:
        if not samples:
            return Measured(address, None, None, 1.0)
        steps = [abs(b - a) for a, b in pairwise(samples)]
        return Measured(
            address,
            rtt_ms=statistics.median(samples) * 1000,
            jitter_ms=statistics.fmean(steps) * 1000 if steps else 0.0,
            loss=1 - len(samples) / self._count,
        )

"""Round trip and loss between this node and the other nodes, from probes of their beacons (PROTOCOL.md 11).

Probes are small and large, because some networks lose only large packets. Sans-I/O: control/peers.py sends them.
"""

import contextlib
import statistics
from collections import deque
from collections.abc import Callable, Iterable
from itertools import pairwise

from causeway_client.protocol import packets
from causeway_client.protocol.errors import DecodeError
from nodeapi.peers import MAX_PEERS, Peer
from nodeapi.telemetry import PeerQuality

SMALL, LARGE = packets.MIN_PROBE, 1000  # bytes
MAX_OUTCOMES = 16  # probes of each size and peer from which the figures are computed
PROBE_TIMEOUT = 2.0  # seconds after which a probe counts as lost


class _Tally:
    """Probes of one size to one peer: the round trips of the last MAX_OUTCOMES in ms, None for a lost one."""

    __slots__ = ("answered_at", "outcomes")

    def __init__(self) -> None:
        self.outcomes: deque[float | None] = deque(maxlen=MAX_OUTCOMES)
        self.answered_at: float | None = None

    @property
    def answered(self) -> list[float]:
        return [outcome for outcome in self.outcomes if outcome is not None]

    @property
    def loss(self) -> float:
        return 1 - len(self.answered) / len(self.outcomes) if self.outcomes else 0.0


class PeerMeter:
    """All times are seconds of one clock; any clock will do."""

    def __init__(self, random: Callable[[int], bytes]) -> None:
        self._random = random
        self._peers: list[Peer] = []
        self._tallies: dict[tuple[Peer, int], _Tally] = {}
        self._pending: dict[bytes, tuple[Peer, int, float]] = {}  # nonce -> (peer, size, time of sending)

    def set_peers(self, peers: Iterable[Peer]) -> None:
        """Replace the peers to be probed. The outcomes of peers that remain are kept."""
        self._peers = list(dict.fromkeys(peers))[:MAX_PEERS]
        known = set(self._peers)
        self._tallies = {key: tally for key, tally in self._tallies.items() if key[0] in known}
        self._pending = {nonce: probe for nonce, probe in self._pending.items() if probe[0] in known}

    @property
    def peers(self) -> list[Peer]:
        return self._peers

    def probe(self, peer: Peer, now: float) -> list[bytes]:
        """One datagram of each size for the peer."""
        datagrams = []
        for size in (SMALL, LARGE):
            nonce = self._random(16)
            self._pending[nonce] = (peer, size, now)
            datagrams.append(packets.Probe(nonce, size).encode())
        return datagrams

    def receive_datagram(self, data: bytes, now: float) -> None:
        """Process an answer, which is recognized by its secret nonce. Any other datagram is ignored."""
        kind = data[0] if data else None
        with contextlib.suppress(DecodeError, KeyError):
            if kind == packets.PacketType.PROBE_REFUSED:  # not a loss: hosts behind our address share a limit
                del self._pending[packets.decode_probe_refused(data).nonce]
            if kind != packets.PacketType.PROBE_REPLY:
                return
            peer, size, sent_at = self._pending.pop(packets.decode_probe_reply(data).nonce)
            tally = self._tallies.setdefault((peer, size), _Tally())
            tally.outcomes.append((now - sent_at) * 1000)
            tally.answered_at = now

    def give_up(self, now: float) -> None:
        """Count the probes that were not answered in time as lost."""
        late = [nonce for nonce, (_, _, sent_at) in self._pending.items() if sent_at <= now - PROBE_TIMEOUT]
        for nonce in late:
            peer, size, _ = self._pending.pop(nonce)
            self._tallies.setdefault((peer, size), _Tally()).outcomes.append(None)

    def forget_pending(self) -> None:
        """The process was suspended for a while, so the outcome of pending probes is unknown."""
        self._pending.clear()

    def figures(self, now: float) -> list[PeerQuality]:
        """The figures of all peers that have answered at least once (docs/node-api.md)."""
        found = []
        for peer in self._peers:
            small, large = (self._tallies.get((peer, size), _Tally()) for size in (SMALL, LARGE))
            answered = small.answered
            if answered and small.answered_at is not None:
                steps = [abs(after - before) for before, after in pairwise(answered)]
                found.append(
                    PeerQuality(
                        node=peer.node,
                        rtt_ms=round(statistics.median(answered), 3),
                        jitter_ms=round(statistics.fmean(steps), 3) if steps else 0.0,
                        loss=round(small.loss, 4),
                        loss_large=round(large.loss, 4),
                        age_s=round(now - small.answered_at, 1),
                    )
                )
        return found

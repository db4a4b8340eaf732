"""When a player sends probes to the addresses of a peer: the schedule of hole punching (PROTOCOL.md 12.4, 12.8)."""

import heapq
from collections.abc import Callable, Hashable, Iterable, Sequence

from .nat import predicted_ports
from .rendezvous import HARD, NatClass

Address = Hashable

SCHEDULE = (0.0, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)  # seconds after the start of a round, for each address
SPACING = 0.005  # seconds between the first probes to two addresses
NEXT_ROUNDS = (5.0, 15.0, 60.0)  # seconds after a round without success; the last one repeats
FINISH_WITHIN = 0.1  # seconds after the first valid path in which the others are still probed
ROUNDS_PER_SECOND = 1.0  # of a peer that are handled ...
ROUNDS_AT_ONCE = 3.0  # ... and in a burst: its NAT class and its mapped ports follow soon after the first round
GUESSES_PER_SECOND = 200
MAX_GUESSES = 1024
GUESSING_INTERVAL = 300.0  # seconds between two series of guesses at a peer's ports


class RoundBudget:
    """How many rounds of a peer are handled."""

    def __init__(self, now: float) -> None:
        self._left, self._counted_at = ROUNDS_AT_ONCE, now

    def take(self, now: float) -> bool:
        """Whether one more is handled."""
        earned = (now - self._counted_at) * ROUNDS_PER_SECOND
        self._left, self._counted_at = min(self._left + earned, ROUNDS_AT_ONCE), now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Punching:
    """The probes of one peer that are due, until a direct path is valid."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Address]] = []  # a heap
        self._count = 0
        self._rounds = 0
        self._next_round: float | None = None
        self._guessed_at: float | None = None

    def start(self, addresses: Sequence[Address], now: float) -> None:
        """A round: probes to every address. It replaces the one before."""
        self._due.clear()
        for index, address in enumerate(addresses):
            for delay in SCHEDULE:
                self._add(now + index * SPACING + delay, address)
        self._next_round = now + NEXT_ROUNDS[min(self._rounds, len(NEXT_ROUNDS) - 1)]
        self._rounds += 1

    def probe_at_once(self, address: Address, now: float) -> None:
        """A valid packet of the peer came from this address."""
        self._add(now, address)

    def guess(self, addresses: Sequence[Address], now: float) -> bool:
        """Probe further ports, at most MAX_GUESSES. False: too soon after the last time."""
        if self._guessed_at is not None and now - self._guessed_at < GUESSING_INTERVAL:
            return False
        self._guessed_at = now
        for index, address in enumerate(addresses[:MAX_GUESSES]):
            self._add(now + index / GUESSES_PER_SECOND, address)
        return True

    def stop(self) -> None:
        """A direct path is valid, or none is wanted any more."""
        self._due.clear()
        self._next_round = None
        self._rounds = 0

    def finish(self, now: float) -> None:
        """A direct path is valid. The others still have a moment to answer."""
        self._due = [probe for probe in self._due if probe[0] <= now + FINISH_WITHIN]
        heapq.heapify(self._due)
        self._next_round = None
        self._rounds = 0

    def take_due(self, now: float) -> list[Address]:
        """The addresses to probe now."""
        due = []
        while self._due and self._due[0][0] <= now:
            due.append(heapq.heappop(self._due)[2])
        return due

    def is_round_due(self, now: float) -> bool:
        """Whether `start` should be called again."""
        return self._next_round is not None and now >= self._next_round and not self._due

    def next_timer(self, *, with_rounds: bool) -> float | None:
        """When `take_due` or, `with_rounds`, `is_round_due` is to be called."""
        if self._due:
            return self._due[0][0]
        return self._next_round if with_rounds else None

    def _add(self, at: float, address: Address) -> None:
        self._count += 1
        heapq.heappush(self._due, (at, self._count, address))


def guessed_addresses(
    own: NatClass,
    theirs: NatClass,
    step: int,
    observed: Iterable[tuple[str, int]],
    random: Callable[[int], bytes],
    extra_sockets: Callable[[], int],
) -> list[Address]:
    """Further addresses to probe if one of the two NATs assigns a port to each destination. `observed`: where the node
    sees the peer; `step`: of the peer's ports; `extra_sockets`: opens them and returns how many."""
    address = next(((ip, port) for ip, port in observed if ":" not in ip), None)
    if address is None or (own in HARD and theirs in HARD):
        return []
    ip, port = address
    if theirs is NatClass.PORT_DEPENDENT:
        return [(ip, guessed) for guessed in predicted_ports(port, step)]
    if theirs is NatClass.RANDOM_PORTS:
        return [(ip, guessed) for guessed in birthday_ports(random) if guessed != port]
    if own is NatClass.RANDOM_PORTS:
        return [(ip, port, number) for number in range(extra_sockets())]
    return []


def birthday_ports(random: Callable[[int], bytes], count: int = MAX_GUESSES) -> list[int]:
    """Different random ports from 1024 on. With 256 sockets on the other side, 1,024 guesses succeed with a probability
    of 98 % (the birthday problem)."""
    ports: dict[int, None] = {}
    while len(ports) < count:
        numbers = random(2 * count)
        for at in range(0, len(numbers), 2):
            port = int.from_bytes(numbers[at : at + 2], "little")
            if port >= 1024 and len(ports) < count:
                ports[port] = None
    return list(ports)

"""A network in memory with a virtual clock: latency, jitter, loss, reordering, duplication, kinds of NAT.

It drives the sans-I/O machines, so that minutes take milliseconds, and every run with a seed is the same run.

    net = Network(seed=1)
    node = NodeHost(net, relay, "198.51.100.1")
    player = PlayerHost(net, machine, "10.0.0.2", line=Line(latency=0.03, loss=0.2), nat=Nat(net, "203.0.113.9"))
    player.start()
    net.run_until(lambda: player.machine.state is State.RELAYED)
"""

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

Address = tuple[str, int]
START = 1_795_257_600.0  # seconds since 1970; the virtual clock starts here


@dataclass(frozen=True)
class Line:
    """One end's access line. All of it holds for each direction; times in seconds, shares 0.0 to 1.0."""

    latency: float = 0.01
    jitter: float = 0.0
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0  # share of packets that are held back ...
    held_back: float = 0.05  # ... by this much


GOOD_LINE = Line()


class Host(Protocol):
    line: Line
    nat: "Nat | None"

    def receive(self, data: bytes, source: Address, destination: Address) -> None: ...


class Network:
    """Carries datagrams between hosts, and keeps the clock."""

    def __init__(self, seed: int = 0) -> None:
        self.now = START
        self.random = random.Random(seed)
        self.sent: list[tuple[Address, Address, bytes]] = []  # as seen on the public side, lost ones too
        self._hosts: dict[str, Host] = {}
        self._nats: dict[str, Nat] = {}
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def attach(self, ip: str, host: Host) -> None:
        self._hosts[ip] = host

    def attach_nat(self, nat: "Nat") -> None:
        self._nats[nat.ip] = nat

    def at(self, when: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._due, (max(when, self.now), next(self._order), call))

    def random_bytes(self, count: int) -> bytes:
        return self.random.randbytes(count)

    def send(self, data: bytes, source: Address, destination: Address) -> None:
        """From a host's own address, which may be a private one, to a public address."""
        sender = self._hosts[source[0]]
        if sender.nat is not None:
            source = sender.nat.outbound(source, destination)
        self.sent.append((source, destination, data))
        for delay in self._journey(sender.line):
            self.at(self.now + delay, lambda: self._arrive(data, source, destination))

    def _arrive(self, data: bytes, source: Address, destination: Address) -> None:
        inner: Address | None = destination
        if destination[0] in self._nats:
            inner = self._nats[destination[0]].inbound(source, destination)
        if inner is None or inner[0] not in self._hosts:
            return
        receiver = self._hosts[inner[0]]
        for delay in self._journey(receiver.line):
            self.at(self.now + delay, lambda: receiver.receive(data, source, inner))

    def _journey(self, line: Line) -> list[float]:
        """The delay of each copy that arrives."""
        copies = 2 if self.random.random() < line.duplicate else 1
        return [self._delay(line) for _ in range(copies) if self.random.random() >= line.loss]

    def _delay(self, line: Line) -> float:
        held_back = line.held_back if self.random.random() < line.reorder else 0.0
        return line.latency + held_back + self.random.uniform(0, line.jitter)

    # -- time ------------------------------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        """Let `seconds` pass."""
        end = self.now + seconds
        while self._due and self._due[0][0] <= end:
            self._step()
        self.now = end

    def run_until(self, condition: Callable[[], bool], seconds: float = 60.0) -> None:
        """Let time pass until the condition holds. AssertionError when it does not within `seconds`."""
        end = self.now + seconds
        while not condition():
            assert self._due and self._due[0][0] <= end, f"not within {seconds:g} virtual seconds"
            self._step()

    def _step(self) -> None:
        self.now, _, call = heapq.heappop(self._due)
        call()


class Behaviour(Enum):
    """What a mapping or a filter depends on (RFC 4787, sections 4.1 and 5)."""

    ENDPOINT_INDEPENDENT = 0
    ADDRESS_DEPENDENT = 1
    ADDRESS_AND_PORT_DEPENDENT = 2

    def key(self, other: Address) -> tuple[Any, ...]:
        return other[: self.value]


FULL_CONE = (Behaviour.ENDPOINT_INDEPENDENT, Behaviour.ENDPOINT_INDEPENDENT)
PORT_RESTRICTED = (Behaviour.ENDPOINT_INDEPENDENT, Behaviour.ADDRESS_AND_PORT_DEPENDENT)
SYMMETRIC = (Behaviour.ADDRESS_AND_PORT_DEPENDENT, Behaviour.ADDRESS_AND_PORT_DEPENDENT)


class Nat:
    """A translator with one public address. A mapping dies after `lifetime` seconds without an outgoing packet."""

    def __init__(
        self,
        network: Network,
        ip: str,
        kind: tuple[Behaviour, Behaviour] = PORT_RESTRICTED,
        lifetime: float = 120.0,
    ) -> None:
        self.ip = ip
        self._network = network
        self._mapping, self._filter = kind
        self._lifetime = lifetime
        self._ports = itertools.count(40_000)
        self._mapped: dict[tuple[Any, ...], int] = {}
        self._inside: dict[int, Address] = {}
        self._used_at: dict[int, float] = {}
        self._seen: dict[int, set[tuple[Any, ...]]] = {}
        network.attach_nat(self)

    def rebind(self) -> None:
        """Forget every mapping, as a router does that restarts."""
        self._mapped.clear()
        self._inside.clear()

    def outbound(self, source: Address, destination: Address) -> Address:
        key = (source, self._mapping.key(destination))
        port = self._mapped.get(key)
        if port is None or not self._is_alive(port):
            port = self._mapped[key] = next(self._ports)
            self._inside[port] = source
            self._seen[port] = set()
        self._used_at[port] = self._network.now
        self._seen[port].add(self._filter.key(destination))
        return self.ip, port

    def inbound(self, source: Address, destination: Address) -> Address | None:
        port = destination[1]
        if port not in self._inside or not self._is_alive(port) or self._filter.key(source) not in self._seen[port]:
            return None
        return self._inside[port]

    def _is_alive(self, port: int) -> bool:
        return self._network.now - self._used_at[port] <= self._lifetime


class _Driven:
    """Re-arms one timer for a machine."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._armed: float | None = None

    def _arm(self, when: float | None) -> None:
        if when is not None and (self._armed is None or when < self._armed):
            self._armed = when
            self.network.at(when, lambda: self._fire(when))

    def _fire(self, when: float) -> None:
        if self._armed == when:
            self._armed = None
            self._timer()

    def _timer(self) -> None:
        raise NotImplementedError


class PlayerHost(_Driven):
    """A machine with the client's methods on a host of its own. What it reports is kept in `events`, payloads in
    `received`."""

    def __init__(
        self,
        network: Network,
        machine: Any,
        ip: str,
        *,
        port: int = 5000,
        line: Line = GOOD_LINE,
        nat: Nat | None = None,
    ) -> None:
        super().__init__(network)
        self.machine = machine
        self.address = (ip, port)
        self.line = line
        self.nat = nat
        self.events: list[Any] = []
        self.received: list[tuple[int, bytes]] = []
        network.attach(ip, self)

    def call(self, method: str, *arguments: Any) -> Any:
        """Call the machine at this moment, then do what an adapter does."""
        result = getattr(self.machine, method)(*arguments, self.network.now)
        self.pump()
        return result

    def receive(self, data: bytes, source: Address, destination: Address) -> None:
        arrived = self.machine.receive_datagram(data, source, self.network.now)
        if arrived is not None:
            self.received.append(arrived)
        self.pump()

    def pump(self) -> None:
        for data, address in self.machine.datagrams_to_send(self.network.now):
            self.network.send(data, self.address, address)
        while (event := self.machine.next_event()) is not None:
            self.events.append(event)
        self._arm(self.machine.next_timer())

    def _timer(self) -> None:
        self.machine.handle_timer(self.network.now)
        self.pump()

    def events_of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


class NodeHost(_Driven):
    """A `relaynode.core.relay.Relay` on its two ports. `relay` may be replaced, as a node's process is by a restart;
    None: down."""

    def __init__(
        self, network: Network, relay: Any, ip: str, ports: tuple[int, int] = (31000, 31001), line: Line = GOOD_LINE
    ) -> None:
        super().__init__(network)
        self.relay = relay
        self.ip = ip
        self.ports = ports
        self.line = line
        self.nat = None
        self.events: list[Any] = []
        network.attach(ip, self)
        self.pump()

    def address(self, port: int = 1) -> Address:
        """Where players of the server port (0) or client port (1) send to."""
        return self.ip, self.ports[port]

    def receive(self, data: bytes, source: Address, destination: Address) -> None:
        if self.relay is None or destination[1] not in self.ports:
            return
        outgoing = self.relay.receive_datagram(data, source, self.ports.index(destination[1]), self.network.now)
        if outgoing is not None:
            self._send(*outgoing)
        self.pump()

    def pump(self) -> None:
        """Send what the relay queued; call it after calling the relay directly."""
        if self.relay is None:
            return
        for outgoing in self.relay.datagrams_to_send():
            self._send(*outgoing)
        while (event := self.relay.next_event()) is not None:
            self.events.append(event)
        self._arm(self.relay.next_timer())

    def _send(self, port: int, data: bytes, destination: Address) -> None:
        self.network.send(data, (self.ip, self.ports[port]), destination)

    def _timer(self) -> None:
        if self.relay is not None:
            self.relay.handle_timer(self.network.now)
            self.pump()

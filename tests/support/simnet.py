"""A network in memory with a virtual clock: latency, jitter, loss, reordering, duplication, kinds of NAT.

It drives the sans-I/O machines, so that minutes take milliseconds, and every run with a seed is the same run.

    net = Network(seed=1)
    node = NodeHost(net, relay, "198.51.100.1")
    player = PlayerHost(net, machine, "10.0.0.2", line=Line(latency=0.03, loss=0.2), nat=Nat(net, "203.0.113.9"))
    player.start()
    net.run_until(lambda: player.machine.state is State.RELAYED)

An address behind a NAT is reached from the same side of that NAT only: the same one may be in use behind several.
"""

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any, Protocol

from causeway_client.protocol.paths.peers import EXTRA_LENGTH
from tests.support.simnat import PORT_RESTRICTED, Address, Mappings, NatKind

START = 1_795_257_600.0  # seconds since 1970; the virtual clock starts here
EXTRA_PORTS = 60_000  # the first port of a player's extra sockets
LAN_LATENCY = 0.0005  # seconds between two hosts behind the same NAT
_PRIVATE = tuple(map(ip_network, ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16")))


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
    """`nat`: the one that its IPv4 addresses are behind; None: they are on the Internet, as IPv6 addresses are."""

    line: Line
    nat: "Nat | None"

    def receive(self, data: bytes, source: Address, destination: Address) -> None: ...


class Realm:
    """Addresses that reach each other without translation."""

    def __init__(self) -> None:
        self.hosts: dict[str, Host] = {}
        self.nats: dict[str, Nat] = {}

    def __contains__(self, ip: str) -> bool:
        return ip in self.hosts or ip in self.nats


class Nat:
    """A translator with one address on the Internet or, if it is `behind` another one, in that one's network.

    `hairpin`: whether hosts behind it reach each other through its outer address. A mapping expires after `lifetime`
    seconds without an outgoing packet.
    """

    def __init__(
        self,
        network: "Network",
        ip: str,
        kind: NatKind = PORT_RESTRICTED,
        *,
        lifetime: float = 120.0,
        hairpin: bool = False,
        behind: "Nat | None" = None,
    ) -> None:
        self.ip = ip
        self.hairpin = hairpin
        self.outer = behind
        self.inside = Realm()
        self.mappings = Mappings(ip, kind, lifetime, network.random)
        (behind.inside if behind else network.internet).nats[ip] = self

    def rebind(self) -> None:
        """Forget every mapping, as a router does that restarts."""
        self.mappings.clear()


class Network:
    """Carries datagrams between hosts, and keeps the clock."""

    def __init__(self, seed: int = 0) -> None:
        self.now = START
        self.random = random.Random(seed)
        self.sent: list[tuple[Address, Address, bytes]] = []  # with the source after translation; lost ones too
        self.internet = Realm()
        self.hosts: dict[str, list[Host]] = {}  # several may have the same private address
        # The seconds by which a datagram is delayed; None: it is lost. The addresses are those of the hosts.
        self.interfere: Callable[[bytes, Address, Address], float | None] | None = None
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def attach(self, ip: str, host: Host) -> None:
        nat = _nat_of(host, ip)
        (nat.inside if nat else self.internet).hosts[ip] = host
        self.hosts.setdefault(ip, []).append(host)

    def at(self, when: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._due, (max(when, self.now), next(self._order), call))

    def random_bytes(self, count: int) -> bytes:
        return self.random.randbytes(count)

    def send(self, data: bytes, source: Address, destination: Address, sender: Host | None = None) -> None:
        """From one of the sender's own addresses. `sender`: required if several hosts have this address."""
        if sender is None:
            (sender,) = self.hosts[source[0]]
        if self.interfere is not None:
            delay = self.interfere(data, source, destination)
            if delay is None:
                return
            if delay:
                self.at(self.now + delay, lambda: self._send(data, source, destination, sender))
                return
        self._send(data, source, destination, sender)

    def _send(self, data: bytes, source: Address, destination: Address, sender: Host) -> None:
        nat = first = _nat_of(sender, source[0])
        while nat is not None and destination[0] not in nat.inside and destination[0] != nat.ip:
            source = nat.mappings.outbound(source, destination, self.now)
            nat = nat.outer
        if nat is not None and destination[0] == nat.ip:
            if not nat.hairpin:
                return
            source = nat.mappings.outbound(source, destination, self.now)
            self.sent.append((source, destination, data))
            self._travel(sender.line, lambda: self._enter(nat, data, source, destination))
            return
        if nat is None and first is not None and _is_private(destination[0]):
            return  # the Internet has no route to it
        self.sent.append((source, destination, data))
        is_local = nat is not None and nat is first
        line = Line(latency=LAN_LATENCY / 2) if is_local else sender.line
        realm = nat.inside if nat else self.internet
        self._travel(line, lambda: self._arrive(realm, data, source, destination, line if is_local else None))

    def _arrive(self, realm: Realm, data: bytes, source: Address, destination: Address, lan: Line | None) -> None:
        """`lan`: the line of a packet that stays on a local network; None: that of its receiver."""
        if destination[0] in realm.nats:
            self._enter(realm.nats[destination[0]], data, source, destination)
        elif (receiver := realm.hosts.get(destination[0])) is not None:
            self._travel(lan or receiver.line, lambda: receiver.receive(data, source, destination))

    def _enter(self, nat: Nat, data: bytes, source: Address, destination: Address) -> None:
        inner = nat.mappings.inbound(source, destination, self.now)
        if inner is not None:
            self._arrive(nat.inside, data, source, inner, None)

    def _travel(self, line: Line, arrive: Callable[[], None]) -> None:
        """`arrive` is called for each copy that arrives."""
        copies = 2 if self.random.random() < line.duplicate else 1
        for delay in [self._delay(line) for _ in range(copies) if self.random.random() >= line.loss]:
            self.at(self.now + delay, arrive)

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


def _nat_of(host: Host, ip: str) -> Nat | None:
    return None if ":" in ip else host.nat


def _is_private(ip: str) -> bool:
    address = ip_address(ip)
    return any(address in network for network in _PRIVATE if network.version == address.version)


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
    `received`. `machine` may be set to None: its process is gone."""

    def __init__(
        self,
        network: Network,
        machine: Any,
        ip: str,
        *,
        port: int = 5000,
        line: Line = GOOD_LINE,
        nat: Nat | None = None,
        ipv6: str = "",
    ) -> None:
        """`ipv6`: a second address, of the other family, with the same port."""
        super().__init__(network)
        self.machine = machine
        self.address = (ip, port)
        self.addresses = [self.address, *([(ipv6, port)] if ipv6 else [])]
        self.line = line
        self.nat = nat
        self.events: list[Any] = []
        self.received: list[tuple[int, bytes]] = []
        for own, _ in self.addresses:
            network.attach(own, self)

    def move(self, ip: str, port: int = 5000) -> None:
        """To another address of the same family: a new socket. What was sent to the old one is lost."""
        old = self.addresses[0]
        (self.nat.inside if self.nat and ":" not in old[0] else self.network.internet).hosts.pop(old[0])
        self.address = (ip, port)
        self.addresses = [self.address, *self.addresses[1:]]
        self.network.attach(ip, self)

    def move_to_ipv6(self, ip: str, port: int = 5000) -> None:
        """To a network that has IPv6 only. What was sent to the old addresses is lost."""
        for old, _ in self.addresses:
            (self.nat.inside if self.nat and ":" not in old else self.network.internet).hosts.pop(old)
        self.address = (ip, port)
        self.addresses = [self.address]
        self.network.attach(ip, self)

    def call(self, method: str, *arguments: Any) -> Any:
        """Call the machine at this moment, then do what an adapter does."""
        result = getattr(self.machine, method)(*arguments, self.network.now)
        self.pump()
        return result

    def receive(self, data: bytes, source: Address, destination: Address) -> None:
        if self.machine is None:
            return
        if destination[1] >= EXTRA_PORTS:
            source = (*source, destination[1] - EXTRA_PORTS)  # type: ignore[assignment]
        arrived = self.machine.receive_datagram(data, source, self.network.now)
        if arrived is not None:
            self.received.append(arrived)
        self.pump()

    def pump(self) -> None:
        for data, address in self.machine.datagrams_to_send(self.network.now):
            self._send(data, address)
        while (event := self.machine.next_event()) is not None:
            self.events.append(event)
        self._arm(self.machine.next_timer())

    def _send(self, data: bytes, destination: Address) -> None:
        """From the address of the destination's family; without one, the packet has no route. A destination may name
        one of the extra sockets of hole punching."""
        if len(destination) == EXTRA_LENGTH:
            ip, port, number = destination  # type: ignore[misc]
            self.network.send(data, (self.address[0], EXTRA_PORTS + number), (ip, port), self)
            return
        for own in self.addresses:
            if (":" in own[0]) == (":" in destination[0]):
                self.network.send(data, own, destination, self)

    def _timer(self) -> None:
        if self.machine is not None:
            self.machine.handle_timer(self.network.now)
            self.pump()

    def events_of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


class NodeHost(_Driven):
    """A `relaynode.core.relay.Relay` on its two ports. `relay` may be replaced, as a node's process is by a restart;
    None: down."""

    def __init__(
        self,
        network: Network,
        relay: Any,
        ip: str,
        ports: tuple[int, int] = (31000, 31001),
        line: Line = GOOD_LINE,
        ipv6: str = "",
    ) -> None:
        """`ipv6`: a second address, of the other family, with the same ports."""
        super().__init__(network)
        self.relay = relay
        self.ip = ip
        self.ipv6 = ipv6
        self.ports = ports
        self.line = line
        self.nat = None
        self.events: list[Any] = []
        for own in filter(None, (ip, ipv6)):
            network.attach(own, self)
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
        own = self.ipv6 if ":" in destination[0] else self.ip
        self.network.send(data, (own, self.ports[port]), destination, self)

    def _timer(self) -> None:
        if self.relay is not None:
            self.relay.handle_timer(self.network.now)
            self.pump()

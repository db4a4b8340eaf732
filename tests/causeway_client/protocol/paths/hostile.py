"""Those who do not follow the rules: a node that changes what it forwards, and hosts that record and send again."""

from collections.abc import Callable
from typing import Any

from causeway_client.protocol import packets
from causeway_client.protocol.packets import HEADER, OVERHEAD, TAG_SIZE, PacketType
from causeway_client.protocol.paths.rendezvous import end_of
from relaynode.core.relay import Outgoing, Relay
from tests.support.simnet import GOOD_LINE, Address, Network

Rewrite = Callable[[int, int, bytes], bytes | None]  # (source, target, body) -> body; None: it is not forwarded


class LyingNode:
    """A relay that rewrites every RENDEZVOUS, under the keys of the connections, which it has. All else is the
    relay's."""

    def __init__(self, relay: Relay, rewrite: Rewrite) -> None:
        self._relay = relay
        self._rewrite = rewrite

    def __getattr__(self, name: str) -> Any:
        return getattr(self._relay, name)

    def receive_datagram(self, data: bytes, addr: Any, port: int, now: float) -> Outgoing | None:
        outgoing = self._relay.receive_datagram(data, addr, port, now)
        return None if outgoing is None else self._changed(outgoing)

    def datagrams_to_send(self) -> list[Outgoing]:
        return [changed for it in self._relay.datagrams_to_send() if (changed := self._changed(it)) is not None]

    def _changed(self, outgoing: Outgoing) -> Outgoing | None:
        port, data, addr = outgoing
        if data[0] != PacketType.RENDEZVOUS:
            return outgoing
        kind, connection, sequence, source = HEADER.unpack_from(data)
        binding = self._relay.forwarder.table.by_connection[connection]
        body = self._rewrite(source, binding.seat.number, data[HEADER.size : -TAG_SIZE])
        if body is None:
            return None
        return port, packets.seal(binding.send_key, kind, connection, sequence, source, body), addr

    def inject(self, seat: int, kind: int, source: int, body: bytes) -> Outgoing:
        """A packet that the node makes up."""
        binding = next(it for it in self._relay.forwarder.table.by_connection.values() if it.seat.number == seat)
        assert binding.seat.addr is not None
        return binding.seat.port, binding.seal(kind, source, body), binding.seat.addr


def parts(body: bytes) -> tuple[bytes, bytes]:
    """A RENDEZVOUS as the player made it, and what the node has added."""
    end = end_of(body)
    return body[:end], body[end:]


class Recorder:
    """A host on the Internet that sees the packets of pairs, and sends what it likes from its own address."""

    line = GOOD_LINE
    nat = None

    def __init__(self, network: Network, ip: str = "192.0.2.66") -> None:
        self.network = network
        self.address: Address = (ip, 666)
        self.seen: list[tuple[Address, bytes]] = []  # (destination, datagram)
        self.received: list[bytes] = []
        network.attach(ip, self)  # type: ignore[arg-type]

    def watch(self, data: bytes, source: Address, destination: Address) -> float:
        """For `Network.interfere`."""
        if data and data[0] in packets.OF_A_PAIR and len(data) >= OVERHEAD and source != self.address:
            self.seen.append((destination, data))
        return 0.0

    def receive(self, data: bytes, source: Address, destination: Address) -> None:
        self.received.append(data)

    def send(self, data: bytes, destination: Address) -> None:
        self.network.send(data, self.address, destination, self)  # type: ignore[arg-type]

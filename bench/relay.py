"""Packets a second through Relay, without sockets: `python -m bench.relay`.

Per dialect pair: a host and a player who send each other 150-byte payloads in turn. What is timed is the relay alone:
the players' packets are made beforehand.
"""

import os
import time

from relaynode.core.relay import CLIENT_PORT, SERVER_PORT, Relay, RelayConfig
from tests.relaynode.players import NOW, EdgegapPlayer, NativePlayer, grant_of

PACKETS = 100_000
PAYLOAD = bytes(range(150))
LIMITS = {"packets": 4_000_000_000, "bytes": 4_000_000_000}  # in force, never reached


def microseconds_per_packet(up: list[tuple[bytes, tuple[str, int], int]], relay: Relay) -> float:
    receive = relay.receive_datagram
    before = relay.counters.forwarded_packets
    started = time.perf_counter()
    for index, (data, addr, port) in enumerate(up):
        receive(data, addr, port, NOW + 1 + index * 1e-6)
    took = time.perf_counter() - started
    assert relay.counters.forwarded_packets - before == len(up)
    return took * 1e6 / len(up)


def edgegap() -> float:
    relay = Relay(worker=0, config=RelayConfig(), random=os.urandom)
    relay.apply_grant(grant_of(seats=2, limits=LIMITS), NOW)
    host, player = EdgegapPlayer(relay, 0), EdgegapPlayer(relay, 1)
    host.ping()
    host.hears(player.send(b"hello"))
    up = player.data(PAYLOAD), player.addr, CLIENT_PORT
    down = host.data(PAYLOAD, host.last_connection_id), host.addr, SERVER_PORT
    return microseconds_per_packet([up, down] * (PACKETS // 2), relay)


def native() -> float:
    relay = Relay(worker=0, config=RelayConfig(), random=os.urandom)
    relay.apply_grant(grant_of(seats=2, limits=LIMITS), NOW)
    host, player = NativePlayer(relay, 0), NativePlayer(relay, 1)
    host.connect()
    player.connect()
    packets = []
    for _ in range(PACKETS // 2):
        packets += [(player.data(PAYLOAD, 0), player.addr, player.port), (host.data(PAYLOAD, 1), host.addr, host.port)]
    return microseconds_per_packet(packets, relay)


def main() -> None:
    for name, run in (("edgegap", edgegap), ("native", native)):
        best = min(run() for _ in range(5))
        print(f"{name:8} {best:6.2f} us a packet, {1e6 / best:10,.0f} packets a second")


if __name__ == "__main__":
    main()

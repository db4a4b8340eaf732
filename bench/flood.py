"""A flood beside a game: `make bench-flood`.

A million packets from 50,000 spoofed sources come at a node, 100,000 a second: unknown tokens, in DATA and in
pings; CONNECTs whose tokens are made up, without a cookie, with a false one, and of a version that is none; probes;
STUN; DATA of a live connection with a wrong tag, and with a right tag but an old number. Beside them one session plays
200 packets a second. Reported for each kind and each path: what the worker's memory grew by, what was sent to the
spoofed sources, and what the session lost. Over a wire between two network namespaces; needs root and gcc.
"""

import argparse
import contextlib
import functools
import json
import os
import random
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from bench.crowd import PLAYER_PORT, Crowd, Flow, write_flows
from bench.xdp import FIRST_PLAYER, NATIVE, NodeOverThere, addressed, route_players
from causeway_client.protocol.packets import STUN_COOKIE, PacketType
from tests.relaynode.datapath.xdp.namespaces import NODE_IPS, PLAYER_IPS, Wire, wire, within

PACKETS = 1_000_000
PAYLOAD = 150  # bytes, behind what a packet begins with
RATE = 100_000
PLAY_RATE = 200
FLOOD_PORT = PLAYER_PORT + 1  # no program reads the answers
SPOOFED = "10.79.0.1"
_SOURCES = 50_000
_WATCHED = ("answer_", "forwarded_packets", "drop_")


class Game:
    """A player who sends to its host, numbered, and a host that counts."""

    def __init__(self, crowd: Crowd, node: NodeOverThere) -> None:
        self.sent = 0
        self.received: set[int] = set()
        self._stop = threading.Event()
        flows = {flow.source: flow for flow in within(node.there.players, lambda: crowd.join_edgegap(node))}
        player = flows[crowd.ip(0, 1)]
        self._head, self._relay = player.head, (player.destination, player.port)
        self._player = within(node.there.players, lambda: _udp(player.source))
        self._host = within(node.there.players, lambda: _udp(crowd.ip(0, 0)))
        self._host_ping = flows[crowd.ip(0, 0)].head[:8] + b"\1", (player.destination, node.server_port)
        self._threads = [threading.Thread(target=self._send), threading.Thread(target=self._hear)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> float:
        """The share that was lost."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._player.close(), self._host.close()
        return 1 - len(self.received) / self.sent

    def _send(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            self._player.sendto(self._head + struct.pack("<I", self.sent) + bytes(100), self._relay)
            self.sent += 1
            if self.sent % PLAY_RATE == 0:
                self._host.sendto(*self._host_ping)
            due += 1 / PLAY_RATE
            time.sleep(max(due - time.monotonic(), 0))
        time.sleep(0.5)
        self._host.settimeout(0.01)

    def _hear(self) -> None:
        while not (self._stop.is_set() and self._host.gettimeout() == 0.01):
            with contextlib.suppress(TimeoutError):
                data = self._host.recv(2048)
                if len(data) > 5:
                    self.received.add(int.from_bytes(data[5:9], "little"))


def _udp(ip: str) -> socket.socket:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    udp.bind((ip, PLAYER_PORT))
    udp.settimeout(0.1)
    return udp


def floods(crowd: Crowd, node: NodeOverThere) -> Iterator[tuple[str, list[Flow]]]:
    """(kind, packets by which to flood), each from sources of its own."""
    dice = random.Random(1)
    ips = [str(IPv4Address(int(IPv4Address(SPOOFED)) + index)) for index in range(_SOURCES)]

    def spoofed(ip: str, head: bytes) -> Flow:
        return Flow(ip, NODE_IPS[0], node.client_port, head)

    def connected() -> Flow:
        return within(node.there.players, lambda: crowd.join_native(node))[0]

    pairs = [struct.pack("<II", dice.randrange(1, 1 << 24) << 8 | 1, 1) for _ in ips]
    yield "unknown tokens", [spoofed(ip, pair + b"\2") for ip, pair in zip(ips, pairs, strict=True)]
    yield "pings, unknown", [spoofed(ip, pair + b"\1") for ip, pair in zip(ips, pairs, strict=True)]
    for kind, head in unauthenticated_packets(dice).items():
        yield kind, [spoofed(ip, head()) for ip in ips]
    head = connected().head
    yield "wrong tags", [spoofed(ip, head) for ip in ips]
    flow = connected()
    yield "replays", [replace(flow, source=ip, repeats=True, sequence=2) for ip in ips]


def unauthenticated_packets(dice: random.Random) -> dict[str, Callable[[], bytes]]:
    """What a node answers, or looks into, without knowing who asks. Whole with the payload that follows."""
    connect, probe = struct.Struct("<BBQ16s16sH"), struct.Struct("<BB16sQ8s")  # PROTOCOL.md 6.1 and 11.1
    now, nonce = time.time_ns() // 1000, functools.partial(dice.randbytes, 16)
    username = struct.pack(">HH18x", 0x0006, PAYLOAD + 18)
    return {
        "forged CONNECTs": lambda: connect.pack(0xC0, 1, now, nonce(), bytes(16), 100),
        "false cookies": lambda: connect.pack(0xC0, 1, now, nonce(), nonce(), 100),
        "other versions": lambda: connect.pack(0xC0, 9, now, nonce(), bytes(16), 100),
        "probes": lambda: probe.pack(PacketType.PROBE, 1, nonce(), 0, bytes(8)),
        "STUN": lambda: struct.pack(">HH", 1, PAYLOAD + len(username)) + STUN_COOKIE + dice.randbytes(12) + username,
    }


def flood(there: Wire, tool: str, flows: list[Flow], folder: str) -> int:
    """Packets sent."""
    path = f"{folder}/flood"
    write_flows(path, addressed(flows, there))
    command = ["ip", "netns", "exec", there.players, "taskset", "-c", "1", tool, path, "wire"]
    options = [str(FLOOD_PORT), str(PAYLOAD), "1", str(PACKETS / RATE), str(RATE)]
    output = subprocess.run([*command, *options], check=True, capture_output=True).stdout
    return int(json.loads(output)["sent"])


def run(path: str, tool: str, folder: str) -> list[dict[str, Any]]:
    rows = []
    with wire() as there:
        route_players(there)
        nobody_there = f"-n {there.node} route add 10.79.0.0/16 via {PLAYER_IPS[0]}"
        subprocess.run(["ip", *nobody_there.split()], check=True)
        with NodeOverThere(there, PACKET_PATH=path) as node:
            crowd = Crowd(2, seats=2, base=FIRST_PLAYER, relay=NODE_IPS[0])
            crowd.grant_all(node)
            worker = node.worker_pids()[0]
            native = Crowd(1, seats=2, base="10.78.9.1", relay=NODE_IPS[0], first=1000)
            for kind, flows in floods(native, node):
                game = Game(crowd, node)
                time.sleep(0.5)
                before, memory = node.counters(), _resident(worker)
                sent = flood(there, tool, flows, folder)
                counters, grown = node.counters(), _resident(worker) - memory
                lost = game.stop()
                changed = {name: counters[name] - before[name] for name in counters if counters[name] != before[name]}
                rows.append(
                    {"path": path, "flood": kind, "packets": sent, "grown_kb": grown // 1024, "lost": lost}
                    | {"counters": {name: count for name, count in changed.items() if name.startswith(_WATCHED)}}
                )
                print(
                    f"{path:9} {kind:16} {sent:10,} packets: memory {grown // 1024:+6} KB, "
                    f"the game lost {lost:.3%} of {game.sent}; {rows[-1]['counters']}",
                    flush=True,
                )
    return rows


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(description="A million packets from spoofed sources, and a game beside them.")
    parser.add_argument("--out", default="var/bench-flood.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tool = f"{folder}/load"
        subprocess.run(["gcc", "-O2", "-fno-strict-aliasing", "-o", tool, str(NATIVE / "load.c")], check=True)
        rows = [row for path in ("userspace", "xdp") for row in run(path, tool, folder)]
    out = Path(arguments.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(rows, indent=2))
    print(f"written: {out}")


if __name__ == "__main__":
    main()

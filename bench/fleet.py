"""Fake nodes for `bench.probing`, as a process of their own: `python -m bench.fleet NODES LEGS`.

Each has a port, keeps its connections, and answers with the report of a node of two workers; so what they cost is not
the manager's. Prints the ports as JSON, serves until its standard input ends.
"""

import asyncio
import json
import re
import sys
import time
from typing import Any

from relaynode.core.counters import ANSWERS, DROPS

WORKERS = 2
NUMBER = "0.123456789"  # stands where the time goes


class Node(asyncio.Protocol):
    """One connection to a node."""

    def __init__(self, fleet: "Fleet", index: int) -> None:
        self.fleet, self.index, self.received = fleet, index, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, end, body = self.received.partition(b"\r\n\r\n")
        size = re.search(rb"(?i)content-length: *(\d+)", head)
        if not end or len(body) < int(size[1] if size else 0):
            return
        self.received = b""
        if head.startswith(b"PUT"):  # whom to measure
            self.fleet.peers_version[self.index] = json.loads(body)["version"]
            answer = b"{}"
        else:
            answer = self.fleet.telemetry(self.index, b"peers=1" in head.split(b"\r\n", 1)[0])
        self.transport.write(
            b"HTTP/1.1 200 OK\r\ndate: Sat, 28 Nov 2026 10:00:00 GMT\r\ncontent-length: %d\r\n"
            b"content-type: application/json\r\n\r\n%b" % (len(answer), answer)
        )


class Fleet:
    def __init__(self, nodes: int, legs: int) -> None:
        self.peers_version = [""] * nodes
        self.quiet = [document(index, legs, peers=0) for index in range(nodes)]
        self.talkative = [document(index, legs, peers=nodes) for index in range(nodes)]

    def telemetry(self, index: int, with_peers: bool) -> bytes:
        text = (self.talkative if with_peers else self.quiet)[index]
        return text.replace(NUMBER, repr(time.time())).replace("PEERS_VERSION", self.peers_version[index]).encode()


def document(index: int, legs: int, peers: int) -> str:
    report: dict[str, Any] = {
        "boot_id": f"{index:032x}",
        "time": float(NUMBER),
        "uptime": 812.4,
        "version": "0.1.0",
        "draining": False,
        "cpu": 0.07,
        "packet_path": "userspace",
        "packet_path_reason": "",
        "workers": [worker(number) for number in range(WORKERS)],
        "peers_version": "PEERS_VERSION",
        "peers": [peer(other) for other in range(peers) if other != index],
        "legs": [leg(index, number) for number in range(legs)],
        "events": [],
        "last_event": 0,
    }
    return json.dumps(report, separators=(",", ":"))  # as Starlette does


def worker(number: int) -> dict[str, Any]:
    counters = dict.fromkeys([f"drop_{name}" for name in DROPS] + [f"answer_{name}" for name in ANSWERS], 17)
    return {
        "index": number,
        "server_port": 31000 + 2 * number,
        "client_port": 31001 + 2 * number,
        "sessions": 12,
        "seats": 48,
        "connected": 40,
        "cpu": 0.07,
        "receive_buffer": 8_388_608,
        "counters": {"forwarded_packets": 120_311, "forwarded_bytes": 18_046_650, **counters},
    }


def leg(index: int, number: int) -> dict[str, Any]:
    return {
        "session": f"{index * 1000 + number // 4:012x}-S",
        "seat": number % 4,
        "dialect": "native",
        "prefix": f"198.{18 + number % 2}.{index % 256}.0/24",
        "player": f"{index * 1000 + number:08x}",
        "rtt_ms": 21.3,
        "jitter_ms": 0.8,
        "loss": 0.0,
    }


def peer(index: int) -> dict[str, Any]:
    return {"node": f"n-{index}", "rtt_ms": 8.1, "jitter_ms": 0.2, "loss": 0.0, "loss_large": 0.0, "age_s": 1.4}


async def main(nodes: int, legs: int) -> None:
    loop, fleet, ports = asyncio.get_running_loop(), Fleet(nodes, legs), []
    for index in range(nodes):
        server = await loop.create_server(lambda index=index: Node(fleet, index), "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
    print(json.dumps(ports), flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))

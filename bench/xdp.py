"""The XDP path under load made in the kernel: two namespaces and a veth pair, a node in one, its players the other.

Each end's packets are handled by a kernel thread of its own (threaded NAPI): the node's on core 0, load and sink on
core 1. What the node's thread used is what a packet costs there: receiving, the program, sending on.
"""

import contextlib
import os
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from bench.crowd import Crowd, Flow
from relaynode.datapath.xdp import bpf, loader
from tests.relaynode.datapath.xdp.namespaces import NODE_IPS, PLAYER_IPS, Wire, wire, within
from tests.support.node_process import NodeProcess

NATIVE = Path(__file__).with_name("native")
PLAYERS_NET, FIRST_PLAYER = "10.78.0.0/16", "10.78.0.1"


@dataclass(frozen=True, slots=True)
class Measured:
    """`ns`: CPU of the node's core for each forwarded packet; `rate`: of those; `lost`: on their way, 0 to 1."""

    ns: float
    rate: float
    lost: float


class NodeOverThere(NodeProcess):
    def __init__(self, there: Wire, **settings: str) -> None:
        super().__init__(1, PUBLIC_IP=NODE_IPS[0], XDP_INTERFACES="wire", CAPACITY="20000", **settings)
        self.there = there
        self.command = there.in_node(["taskset", "-c", "0", *self.command])

    def call(self, method: str, path: str, body: object = None, key: str | None = None) -> tuple[int, Any]:
        return within(self.there.node, lambda: super(NodeOverThere, self).call(method, path, body, key))


class Blaster:
    """The two programs of blast.bpf.c, at the players' end."""

    def __init__(self, there: Wire, flows: int) -> None:
        self._there = there
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder, "blast.o")
            command = ["clang", "-O2", "-g0", "-target", "bpf", "-mcpu=v3", "-Wno-unused-function"]
            subprocess.run([*command, "-c", str(NATIVE / "blast.bpf.c"), "-o", str(target)], check=True)
            file = loader.ObjectFile(target.read_bytes())
        self._maps = loader.make_maps(file, file.maps_of("blast") | file.maps_of("sink"), flows)
        self._blast = loader.load(file, "blast", self._maps)
        sink = loader.load(file, "sink", self._maps)
        self.interface = within(there.players, lambda: socket.if_nametoindex("wire"))
        self._link = within(there.players, lambda: bpf.attach(sink, self.interface, bpf.NATIVE))

    def load(self, flows: list[Flow], payload: int) -> None:
        for index, flow in enumerate(flows):
            self._maps["flows"].put(index.to_bytes(4, "little"), flow.packed())
        self._maps["plans"].put(bytes(4), struct.pack("=IIII", len(flows), self.interface, payload, 0))
        self._size = 42 + payload + 32

    def tallies(self) -> tuple[int, int]:
        """(sent, come back) so far."""
        sums = []
        for which in range(2):
            values = self._maps["tallies"].get(which.to_bytes(4, "little")) or b""
            sums.append(sum(count for (count,) in struct.iter_unpack("=Q", values)))
        return sums[0], sums[1]

    def run(self, packets: int) -> None:
        os.sched_setaffinity(0, {1})  # this thread's
        bpf.run_live(self._blast, bytes(self._size), packets)

    def close(self) -> None:
        os.close(self._link)


@contextlib.contextmanager
def xdp_node(sessions: int, with_front: bool) -> Iterator[tuple[NodeOverThere, Crowd]]:
    """A node on the XDP path, and its players. `with_front`: see `wire`."""
    with wire(with_front=with_front) as there:
        route_players(there)
        crowd = Crowd(sessions, base=FIRST_PLAYER, relay=NODE_IPS[0])
        with NodeOverThere(there, PACKET_PATH="xdp") as node:
            crowd.grant_all(node)
            yield node, crowd


def route_players(there: Wire) -> None:
    """Have all of PLAYERS_NET live at the players' end of the wire."""
    for command in (
        f"-n {there.players} route add local {PLAYERS_NET} dev lo",
        f"-n {there.node} route add {PLAYERS_NET} via {PLAYER_IPS[0]}",
    ):
        subprocess.run(["ip", *command.split()], check=True)


def measure(
    blaster: Blaster, node: NodeOverThere, thread: int, flows: list[Flow], payload: int, packets: int
) -> Measured:
    there = node.there
    blaster.load(addressed(flows, there), payload)
    warm = 20 * len(flows)
    within(there.players, lambda: blaster.run(warm))
    time.sleep(0.1)
    sent, back = blaster.tallies()
    forwarded = node.counters()["forwarded_packets"]
    used, started = _run_time(thread), time.monotonic()
    within(there.players, lambda: blaster.run(packets))
    time.sleep(0.05)
    took = time.monotonic() - started - 0.05
    sent_now, back_now = blaster.tallies()
    received = back_now - back
    forwarded = node.counters()["forwarded_packets"] - forwarded
    return Measured(
        ns=(_run_time(thread) - used) / forwarded,
        rate=forwarded / took,
        lost=1 - received / (sent_now - sent),
    )


def rounds(name: str, sessions: int, payload: int, count: int = 5, packets: int = 2_000_000) -> list[Measured]:
    """`name`: edgegap or native."""
    results = []
    with xdp_node(sessions, with_front=False) as (node, crowd):
        blaster = Blaster(node.there, sessions * 8)
        thread = own_threads(node.there)
        for _ in range(count):
            flows = within(node.there.players, partial(crowd.join, node, name))
            results.append(measure(blaster, node, thread, flows, payload, packets))
        blaster.close()
    return results


def own_threads(there: Wire) -> int:
    """Have each end of the wire served by a thread on a core of its own; the process id of the node's."""
    thread = _own_thread(there.node, 0)
    _own_thread(there.players, 1)
    return thread


def _own_thread(namespace: str, core: int) -> int:
    """Have the interface served by a thread of its own on `core`; its process id."""
    before = _napi_threads()
    command = ["ip", "netns", "exec", namespace, "sh", "-c", "echo 1 > /sys/class/net/wire/threaded"]
    subprocess.run(command, check=True)
    (pid,) = _napi_threads() - before
    os.sched_setaffinity(pid, {core})
    os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(1))  # it need not wait for the load on its core
    return pid


def _napi_threads() -> set[int]:
    found = set()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if (entry / "comm").read_text().startswith("napi/wire"):
                found.add(int(entry.name))
    return found


def _run_time(pid: int) -> int:
    """Nanoseconds on a core so far."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


def addressed(flows: list[Flow], there: Wire) -> list[Flow]:
    """From the players' end of the wire to the node's."""
    macs = mac_of(there.node) + mac_of(there.players)
    return [replace(flow, mac=macs) for flow in flows]


def mac_of(namespace: str) -> bytes:
    shown = subprocess.run(["ip", "-n", namespace, "-o", "link", "show", "wire"], capture_output=True, text=True).stdout
    return bytes.fromhex(shown.split("link/ether ")[1].split()[0].replace(":", ""))

"""What a packet costs, on each path and beside its peers: `make bench-packets` (ARGS="--with-coturn --quick").

Sockets: everything in a network namespace of its own, over 127.0.0.0/8; relay on core 0, load and sink on core 1
(native/load.c, compiled here). Each round measures the bare C forwarder (native/forward.c) before and after every
relay, and counts only when the two agree within 10 % and nothing was lost; the result is the median of the rounds,
its range, and the ratio to the forwarder. XDP path: see xdp.py. Needs root, gcc and clang.
"""

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench import turn, xdp
from bench.chart import bars
from bench.crowd import PLAYER_PORT, Crowd, Flow, write_flows
from bench.xdp import addressed
from tests.relaynode.datapath.xdp.namespaces import Wire, within
from tests.support.node_process import NodeProcess

NATIVE = Path(__file__).with_name("native")
RELAY_CORE, LOAD_CORE = 0, 1
IN_FLIGHT = 256
SECONDS, ROUNDS = 0.5, 9  # short, so that little changes on the machine from before a relay to after it
LONG = 10.0  # seconds, for what is rare
ASKED_EACH = 0.02
KERNEL_RATE = 100_000
AGREE = 0.10
_FORWARD_PORT = 9_999
FIRST = ("nice", "-n", "-15")  # before whatever else runs on the machine
PINNED = (*FIRST, "taskset", "-c", str(RELAY_CORE))


class Bench:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in ("load", "forward"):
            source = str(NATIVE / f"{name}.c")
            command = ["gcc", "-O2", "-fno-strict-aliasing", "-o", str(folder / name), source]
            subprocess.run(command, check=True)

    def load(
        self,
        flows: list[Flow],
        payload: int,
        rate: float = 0,
        copies: int = 1,
        seconds: float = SECONDS,
        there: Wire | None = None,
    ) -> dict[str, float]:
        """Run the load, at the players' end of the wire `there` or over loopback; its own words, see load.c."""
        path = str(self._folder / "flows")
        write_flows(path, addressed(flows, there) if there else flows)
        place = ["ip", "netns", "exec", there.players] if there else []
        interface = "wire" if there else "lo"
        tool = str(self._folder / "load")
        command = [*place, *FIRST, "taskset", "-c", str(LOAD_CORE), tool, path, interface, str(PLAYER_PORT)]
        options = [str(payload), str(IN_FLIGHT), str(seconds), str(rate), str(copies)]
        measured: dict[str, float] = json.loads(
            subprocess.run([*command, *options], check=True, capture_output=True).stdout
        )
        return measured

    def cost(self, pid: int, flows: list[Flow], payload: int, copies: int = 1) -> tuple[float, dict[str, float]]:
        """(microseconds of CPU for each packet that came back, what the load measured)."""
        before = _cpu(pid)
        measured = self.load(flows, payload, copies=copies)
        return (_cpu(pid) - before) * 1e6 / max(measured["received"], 1), measured

    @contextlib.contextmanager
    def forwarder(self, crowd: Crowd) -> Iterator[tuple[int, list[Flow]]]:
        """The bare C forwarder: its process id, and flows through it."""
        lines, flows = [], []
        for session, seat in crowd.pairs():
            player, host = crowd.ip(session, seat), crowd.ip(session, 0)
            lines.append(f"{player} {PLAYER_PORT} {host} {PLAYER_PORT}\n")
            flows.append(Flow(player, crowd.relay, _FORWARD_PORT, bytes(9)))
        peers = self._folder / "peers"
        peers.write_text("".join(lines))
        command = [*PINNED, str(self._folder / "forward"), str(_FORWARD_PORT), str(peers)]
        process = subprocess.Popen(command)
        try:
            time.sleep(0.3)
            yield process.pid, flows
        finally:
            process.kill()
            process.wait()


@dataclass(frozen=True, slots=True)
class Peer:
    """A relay to measure: its process, how players join it, how many copies it makes of each packet."""

    pid: int
    join: Callable[[], list[Flow]]
    copies: int = 1


def measure_sockets(bench: Bench, sessions: int, payload: int, with_coturn: bool) -> dict[str, Any]:
    """By relay: cost in microseconds and as a ratio to the forwarder, each [least, median, most]."""
    crowd = Crowd(sessions)
    results: dict[str, list[tuple[float, float]]] = {}
    disturbed: dict[str, list[tuple[float, float]]] = {}  # reported only where no round was sound
    with contextlib.ExitStack() as stack:
        pid, flows = stack.enter_context(bench.forwarder(crowd))
        relays: dict[str, Peer] = {}
        for dialect in ("edgegap", "native"):
            node = NodeProcess(1, CAPACITY=str(4 * sessions + 100), PACKET_PATH="userspace")
            node.command = [*PINNED, *node.command]
            stack.enter_context(node)
            crowd.grant_all(node)
            worker = node.worker_pids()[0]
            relays[f"userspace {dialect}"] = Peer(worker, partial(crowd.join, node, dialect))
            if dialect == "native":
                fan_out = partial(crowd.join_native, node, fan_out=True)
                relays["userspace native, fan-out"] = Peer(worker, fan_out, copies=crowd.seats - 1)
        if with_coturn:
            turn_pid = stack.enter_context(turn.turn_server(RELAY_CORE))
            allocated = turn.join(crowd, payload)
            relays["coturn"] = Peer(turn_pid, lambda: allocated)
        for _ in range(ROUNDS):
            for name, relay in relays.items():
                joined = relay.join()
                before, _ = bench.cost(pid, flows, payload)
                cost, measured = bench.cost(relay.pid, joined, payload, relay.copies)
                after, _ = bench.cost(pid, flows, payload)
                results.setdefault("bare C forwarder", []).append(((before + after) / 2, 1.0))
                is_sound = (
                    abs(before - after) <= AGREE * before
                    and measured["lost"] <= 0.001 * measured["sent"] * relay.copies
                )
                kept = results if is_sound else disturbed
                kept.setdefault(name, []).append((cost, cost / ((before + after) / 2)))
    return {
        name: {
            "us": _spread([cost for cost, _ in found]),
            "ratio": _spread([ratio for _, ratio in found]),
            "disturbed": name not in results,
        }
        for name, found in (disturbed | results).items()
    }


def measure_delay(bench: Bench, sessions: int, half: dict[str, float]) -> dict[str, Any]:
    """What a relay adds at 1,000 packets a second, and at half of what it can do: microseconds."""
    return _delay_of_sockets(bench, sessions, half) | _delay_of_kernel(bench, sessions)


def _delay_of_sockets(bench: Bench, sessions: int, half: dict[str, float]) -> dict[str, Any]:
    """Over a bare send."""
    crowd = Crowd(sessions)
    with NodeProcess(1, CAPACITY=str(4 * sessions + 100), PACKET_PATH="userspace") as node:
        os.sched_setaffinity(node.worker_pids()[0], {RELAY_CORE})
        os.setpriority(os.PRIO_PROCESS, node.worker_pids()[0], -15)
        crowd.grant_all(node)
        direct = bench.load([Flow(crowd.ip(0, 1), crowd.ip(0, 0), PLAYER_PORT, bytes(9))], 150, 1000)
        results = {}
        for name in ("edgegap", "native"):
            for label, rate in (("1,000 a second", 1000.0), ("half load", half[name])):
                flows = crowd.join(node, name)  # anew: a native packet's number is good once
                measured = bench.load(flows, 150, rate, seconds=LONG)
                results[f"userspace {name}, {label}"] = _delay(measured, rate, direct["p50_us"])
    return results


def _delay_of_kernel(bench: Bench, sessions: int) -> dict[str, Any]:
    """With the wire, there and back, and the sockets at its end. Half of what it can do is more than they can hear."""
    results = {}
    with xdp.xdp_node(sessions, with_front=True) as (node, crowd):
        xdp.own_threads(node.there)
        for name in ("edgegap", "native"):
            for rate in (1000, KERNEL_RATE):
                flows = within(node.there.players, partial(crowd.join, node, name))
                measured = bench.load(flows, 150, rate, seconds=LONG, there=node.there)
                results[f"xdp {name}, {rate:,} a second, wire included"] = _delay(measured, rate)
    return results


def _delay(measured: dict[str, float], rate: float, less: float = 0) -> dict[str, float]:
    points = {point: round(measured[point] - less, 1) for point in ("p50_us", "p99_us", "p999_us")}
    return points | {"rate": rate, "lost": 1 - measured["received"] / measured["sent"]}


def measure_control(bench: Bench, sessions: int) -> dict[str, Any]:
    """How long GET /telemetry, which asks the worker too, takes while it has all the packets it can bear: ms."""
    crowd = Crowd(sessions)
    results = {}
    with NodeProcess(1, CAPACITY=str(4 * sessions + 100), PACKET_PATH="userspace") as node:
        os.sched_setaffinity(node.worker_pids()[0], {RELAY_CORE})
        crowd.grant_all(node)
        for name in ("edgegap", "native"):
            flows = crowd.join(node, name)
            with ThreadPoolExecutor(1) as other:
                load = other.submit(bench.load, flows, 150, seconds=LONG)
                time.sleep(SECONDS)
                took = []
                while not load.done():
                    took.append(_milliseconds(node.telemetry))
                    time.sleep(ASKED_EACH)
            took.sort()
            points = {"p50_ms": took[len(took) // 2], "p99_ms": took[len(took) * 99 // 100], "most_ms": took[-1]}
            results[f"userspace {name}"] = {**points, "packets_s": round(load.result()["received"] / LONG)}
    return results


def _milliseconds(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return round((time.perf_counter() - started) * 1e3, 1)


def measure_memory() -> dict[str, float]:
    """Of a worker that holds 5,000 sessions of 4 seats, none of them connected."""
    with NodeProcess(1, CAPACITY="20000", PACKET_PATH="userspace") as node:
        worker = node.worker_pids()[0]
        empty = _resident(worker)
        Crowd(5000).grant_all(node)
        full = _resident(worker)
    return {"empty_mb": empty / 1e6, "full_mb": full / 1e6, "bytes_a_session": (full - empty) / 5000}


def _spread(values: list[float]) -> list[float]:
    return [round(value, 3) for value in (min(values), statistics.median(values), max(values))]


def _cpu(pid: int) -> float:
    """Seconds of CPU a process has used, all its threads (clock_getcpuclockid(3))."""
    return time.clock_gettime((~pid << 3) | 2)


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def own_namespace() -> None:
    """Start over in a network namespace of our own, in which 127.0.0.0/8 is a network like any other."""
    if os.environ.get("CAUSEWAY_BENCH_INSIDE") != "1":
        os.environ["CAUSEWAY_BENCH_INSIDE"] = "1"
        os.execvp("unshare", ["unshare", "--net", sys.executable, "-m", "bench.packets", *sys.argv[1:]])
    settings = [
        f"net.ipv4.conf.{where}.{what}"
        for where in ("all", "lo")
        for what in ("route_localnet=1", "accept_local=1", "rp_filter=0")
    ]
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["sysctl", "-qw", *settings], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--with-coturn", action="store_true", help="measure Debian's coturn beside us")
    parser.add_argument("--quick", action="store_true", help="one size, one number of sessions")
    parser.add_argument("--out", default="var/bench-packets.json")
    arguments = parser.parse_args()
    own_namespace()
    if arguments.with_coturn and not turn.is_installed():
        sys.exit("coturn is not installed: apt-get install coturn, or leave --with-coturn out")
    if not arguments.with_coturn:
        print("coturn: left out (--with-coturn measures it)")
    payloads = [150] if arguments.quick else [64, 150, 600, 1187 - 9]
    crowds = [100] if arguments.quick else [1, 100, 1000]
    result: dict[str, Any] = {"machine": f"{platform.processor() or platform.machine()}, Linux {platform.release()}"}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        for payload, sessions in [(payload, crowds[-1] if len(crowds) > 1 else crowds[0]) for payload in payloads] + [
            (150, sessions) for sessions in crowds[:-1]
        ]:
            key = f"{payload} bytes, {sessions} sessions"
            result[key] = measure_sockets(bench, sessions, payload, arguments.with_coturn)
            result[key] |= measure_kernel(sessions, payload)
            show(key, result[key])
        sockets = result[next(key for key in result if key.startswith("150 bytes"))]
        half = {name: 0.5e6 / sockets[f"userspace {name}"]["us"][1] for name in ("edgegap", "native")}
        result["added delay"] = measure_delay(bench, 100, half)
        result["control API under full load"] = measure_control(bench, 100)
        result["memory"] = measure_memory()
    for key in ("added delay", "control API under full load", "memory"):
        print(key, json.dumps(result[key], indent=2))
    out = Path(arguments.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2))
    main_rows = {name: row["us"][1] for name, row in sockets.items()}
    out.with_suffix(".svg").write_text(bars("CPU for each forwarded 150-byte packet, microseconds", main_rows))
    print(f"written: {out} and {out.with_suffix('.svg')}")


def measure_kernel(sessions: int, payload: int) -> dict[str, Any]:
    results = {}
    for dialect in ("edgegap", "native"):
        found = xdp.rounds(dialect, sessions, payload, ROUNDS)
        results[f"xdp {dialect}"] = {
            "us": _spread([one.ns / 1000 for one in found]),
            "rate": _spread([one.rate for one in found]),
        }
    return results


def show(title: str, rows: dict[str, Any]) -> None:
    bare, coturn = rows["bare C forwarder"]["us"][1], rows.get("coturn", {}).get("ratio", [0, 0, 0])[1]
    print(f"\n{title}\n{'':26}{'us/packet':>22}{'packets/s':>12}{'/ bare C':>10}{'/ coturn':>10}")
    for name, row in sorted(rows.items(), key=lambda item: item[1]["us"][1]):
        least, middle, most = row["us"]
        ratio = row["ratio"][1] if "ratio" in row else middle / bare
        against = f"{ratio / coturn:10.2f}" if coturn else ""
        spread = f"{middle:.2f} ({least:.2f}-{most:.2f})"
        if row.get("disturbed"):
            name += " (disturbed)"
        print(f"{name:26}{spread:>22}{1e6 / middle:12,.0f}{ratio:10.2f}{against}", flush=True)


if __name__ == "__main__":
    main()

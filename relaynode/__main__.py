"""`python -m relaynode` runs a node. Its settings are environment variables CAUSEWAY_NODE_... (config.NodeConfig).

Exit status: 0 stopped by a signal; 2 a setting is invalid; 3 a port is unavailable; 4 the manager refused the join;
5 the state folder is unusable. Each is explained in one line on standard error.
"""

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

from observability import log_config, tracing

from .config import PACKET_PATHS, PREFIX, NodeConfig, read_config
from .control.api import ControlServer
from .control.manager_link import ManagerLink
from .control.peers import PeerProber
from .datapath.packet_path import choose_packet_path
from .datapath.sockets import open_beacon, open_tcp_port, open_udp_port
from .errors import ConfigError, NodeError, PortUnavailable
from .supervision.event_loop import run
from .supervision.node import Node
from .supervision.state_folder import NodeKeys, StateFolder

log = logging.getLogger("relaynode")

PORT_TIMEOUT = 2.0
"""Seconds to wait for the ports: the workers of a killed node release them a moment after it."""


def main() -> int:
    try:
        config = read_config({**os.environ, **_arguments(sys.argv[1:])})
        _set_up_logging(config)
        tracing.start("causeway-node")
        run(serve(config))
    except NodeError as error:
        print(f"relaynode: {error}", file=sys.stderr)
        return error.exit_status
    return 0


def _arguments(arguments: list[str]) -> dict[str, str]:
    """The arguments as the variables that they replace."""
    parser = argparse.ArgumentParser(
        prog="relaynode", description="A relay node. Its settings are environment variables CAUSEWAY_NODE_..."
    )
    parser.add_argument("--packet-path", choices=PACKET_PATHS, help="overrides CAUSEWAY_NODE_PACKET_PATH")
    path = parser.parse_args(arguments).packet_path
    return {PREFIX + "PACKET_PATH": path} if path else {}


async def serve(config: NodeConfig) -> None:
    """Run the node until a signal stops it. Raises NodeError."""
    folder = StateFolder(config.state_dir)
    folder.lock()
    keys = choose_keys(config, folder)
    signals = StopSignals()
    sockets = await _open_ports(config)
    listener = await _opened_in_time(lambda: open_tcp_port(config.control_host, config.control_port))
    packet_path = choose_packet_path(config)
    node = Node(config, folder, keys, sockets, packet_path)
    control = ControlServer(node, listener)
    log.info("node %s: control API at %s, state in %s", config.name, config.control_url, config.state_dir)

    snapshot = asyncio.create_task(node.snapshot.run())
    http = asyncio.create_task(control.run())
    workers = [asyncio.create_task(worker.run()) for worker in node.workers]
    keeping = asyncio.create_task(node.keep_keys())
    peers = asyncio.create_task(PeerProber(node.peers, config.peer_probe_interval).run())
    link = [] if config.is_standalone else [asyncio.create_task(ManagerLink(node).run())]
    websocket = [asyncio.create_task(node.websocket.run())] if config.websocket_port else []
    restarting = asyncio.create_task(_restart_workers_at_hangup(node))
    beacons = [await open_beacon(config.bind, pair.client) for pair in config.ports]
    try:
        await _first_of(signals.first.wait(), snapshot, http, keeping, peers, restarting, *workers, *link, *websocket)
        log.info("stopping")
        await node.wind_down(signals.second)
    finally:
        for beacon in beacons:
            if beacon is not None:
                beacon.close()
        await _cancel(keeping, peers, restarting, *link, *websocket)
        control.stop()
        await _cancel(*workers)
        packet_path.close()
        node.snapshot.close()
        await asyncio.gather(snapshot, http, return_exceptions=True)


def choose_keys(config: NodeConfig, folder: StateFolder) -> NodeKeys:
    """The keys from the join or, without a manager, from the settings. Raises ConfigError."""
    kept = folder.read_keys()
    if not config.is_standalone:
        if kept is not None and kept.node_key:
            return kept
        if not config.join_key:
            raise ConfigError(
                PREFIX + "JOIN_KEY", f"is required: there are no keys of an earlier join in {config.state_dir}"
            )
        return NodeKeys(control_key="")
    control_key = config.control_key or (kept.control_key if kept else "")
    if not control_key:
        raise ConfigError(PREFIX + "CONTROL_KEY", f"is required when {PREFIX}MANAGER_URL is empty")
    return NodeKeys(control_key=control_key, token_keys=config.token_keys or (kept.token_keys if kept else {}))


class StopSignals:
    """SIGTERM or SIGINT: the first one stops the node after draining, the second one immediately."""

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._take)

    def _take(self) -> None:
        if self.first.is_set():
            self.second.set()
        self.first.set()


async def _restart_workers_at_hangup(node: Node) -> None:
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, asked.set)
    while True:
        await asked.wait()
        asked.clear()
        await node.restart_workers()


async def _open_ports(config: NodeConfig) -> list[tuple[socket.socket, socket.socket]]:
    async def opened(port: int) -> socket.socket:
        return await _opened_in_time(lambda: open_udp_port(config.bind, port))

    return [(await opened(pair.server), await opened(pair.client)) for pair in config.ports]


async def _opened_in_time(open_port: Callable[[], socket.socket]) -> socket.socket:
    deadline = time.monotonic() + PORT_TIMEOUT
    while True:
        try:
            return open_port()
        except PortUnavailable:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.05)


async def _first_of(stop: Coroutine[Any, Any, Any], *tasks: asyncio.Task[None]) -> None:
    """Return when `stop` does. No task should end earlier; raises the error of one that does."""
    stopped = asyncio.create_task(stop)
    done, _ = await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
    await _cancel(stopped)
    for task in done - {stopped}:
        task.result()
        raise NodeError("a task of the node ended unexpectedly")


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _set_up_logging(config: NodeConfig) -> None:
    log_config.set_up(config.log_level, config.log_format)
    # For the workers, which read no other settings.
    os.environ |= {log_config.LEVEL_VARIABLE: config.log_level, log_config.FORMAT_VARIABLE: config.log_format}
    for chatty in ("httpx", "httpcore", "uvicorn", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


if __name__ == "__main__":
    sys.exit(main())

"""The process that carries WebSockets to the workers: started with the node, restarted when it ends."""

import asyncio
import json
import logging
import sys
from typing import Any

from nodeapi.telemetry import WebSocketStats

from ..config import NodeConfig, child_environment

log = logging.getLogger("relaynode.websocket")

RESTART_AFTER = 2.0  # seconds


class WebSocketProcess:
    """`counters` are the latest that it reported; they begin anew with each process."""

    def __init__(self, config: NodeConfig) -> None:
        self.counters: dict[str, int] = {}
        self.certificate_expires_at = 0  # seconds since 1970; 0: it has no certificate
        self.restarts = 0
        self._settings = {
            "host": config.websocket_bind,
            "port": config.websocket_port,
            "certificate": config.tls_certificate,
            "key": config.tls_key,
            "ports": [port for pair in config.ports for port in (pair.server, pair.client)],
            "trusted_proxies": [str(network) for network in config.trusted_proxies],
        }

    @property
    def stats(self) -> WebSocketStats | None:
        """As in telemetry; None: this node has no WebSocket port."""
        if not self._settings["port"]:
            return None
        return WebSocketStats(
            connections=self.counters.get("connections", 0),
            accepted=self.counters.get("accepted", 0),
            restarts=self.restarts,
            certificate_expires_at=self.certificate_expires_at,
        )

    async def run(self) -> None:
        while True:
            status = await self._run_once()
            self.counters = {**self.counters, "connections": 0}
            self.restarts += 1
            log.error("the WebSocket process ended with status %s, starting it again", status)
            await asyncio.sleep(RESTART_AFTER)

    async def _run_once(self) -> int:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "relaynode.websocket"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=child_environment(),
        )
        assert process.stdin is not None and process.stdout is not None  # noqa: S101 - they are pipes
        try:
            process.stdin.write(json.dumps(self._settings).encode() + b"\n")
            async for line in process.stdout:
                self._take(json.loads(line))
            return await process.wait()
        finally:
            process.stdin.close()
            if process.returncode is None:
                process.terminate()
                await process.wait()

    def _take(self, report: dict[str, Any]) -> None:
        counters = {str(name): int(count) for name, count in report["counters"].items()}
        if counters.get("certificate_loads", 0) > self.counters.get("certificate_loads", 0):
            log.info("the WebSocket port has a new certificate")
        if error := report["certificate_error"]:
            log.error("the changed certificate cannot be loaded, the one before stays in use: %s", error)
        self.counters = counters
        self.certificate_expires_at = int(report["certificate_expires_at"])

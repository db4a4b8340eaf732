"""`python -m relaynode.websocket` carries WebSockets; the node starts it. Its settings are JSON on standard input, and
it reports as JSON lines. It ends when standard input is closed, so also when the node dies."""

import asyncio
import contextlib
import ipaddress
import json
import resource
import sys
from typing import Any

from ..errors import PortUnavailable
from ..supervision.event_loop import run
from .bridge import Bridge
from .certificates import Certificate

REPORT_INTERVAL = 2.0  # seconds


async def serve(settings: dict[str, Any], ended: asyncio.StreamReader) -> None:
    bridge = Bridge(settings["ports"], [ipaddress.ip_network(text) for text in settings["trusted_proxies"]])
    certificate = Certificate(settings["certificate"], settings["key"]) if settings["certificate"] else None
    bridge.context = certificate.context if certificate else None
    bridge.open(settings["host"], settings["port"])
    tasks = [asyncio.create_task(bridge.run()), asyncio.create_task(_report(bridge, certificate))]
    await ended.read()
    for task in tasks:
        task.cancel()
    bridge.close()


async def _report(bridge: Bridge, certificate: Certificate | None) -> None:
    while True:
        error = ""
        if certificate is not None:
            error = _reload(bridge, certificate)
        expires_at = int(certificate.expires_at) if certificate else 0
        report = {"counters": bridge.counters, "certificate_expires_at": expires_at, "certificate_error": error}
        print(json.dumps(report), flush=True)
        await asyncio.sleep(REPORT_INTERVAL)


def _reload(bridge: Bridge, certificate: Certificate) -> str:
    """Why changed files could not be loaded; empty: they were, or there are none."""
    try:
        if certificate.reload_if_changed():
            bridge.context = certificate.context
            bridge.counters["certificate_loads"] += 1
    except (OSError, ValueError) as error:
        bridge.counters["certificate_failures"] += 1
        return f"{type(error).__name__}: {error}"[:300]
    return ""


async def main() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # two for each player
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    settings = json.loads(await reader.readline())
    with contextlib.suppress(asyncio.CancelledError):
        await serve(settings, reader)


if __name__ == "__main__":
    try:
        run(main())
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        print(f"websocket: {error}", file=sys.stderr)
        sys.exit(PortUnavailable.exit_status)

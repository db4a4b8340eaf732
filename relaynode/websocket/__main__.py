"""`python -m relaynode.websocket` carries WebSockets; the node starts it. Its settings are JSON on standard input, and
it reports its counters as JSON lines. It ends when standard input is closed, so also when the node dies."""

import asyncio
import contextlib
import json
import ssl
import sys
from typing import Any

from ..errors import PortUnavailable
from ..supervision.event_loop import run
from .bridge import Bridge

REPORT_INTERVAL = 2.0  # seconds


async def serve(settings: dict[str, Any], ended: asyncio.StreamReader) -> None:
    bridge = Bridge(settings["ports"])
    context = None
    if settings["certificate"]:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(settings["certificate"], settings["key"])
    server = await bridge.open(settings["host"] or None, settings["port"], context)
    reporting = asyncio.create_task(_report(bridge))
    await ended.read()
    reporting.cancel()
    server.close()


async def _report(bridge: Bridge) -> None:
    while True:
        print(json.dumps(bridge.counters), flush=True)
        await asyncio.sleep(REPORT_INTERVAL)


async def main() -> None:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    settings = json.loads(await reader.readline())
    with contextlib.suppress(asyncio.CancelledError):
        await serve(settings, reader)


if __name__ == "__main__":
    try:
        run(main())
    except (OSError, ssl.SSLError) as error:
        print(f"websocket: {error}", file=sys.stderr)
        sys.exit(PortUnavailable.exit_status)

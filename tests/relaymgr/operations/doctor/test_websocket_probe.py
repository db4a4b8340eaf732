"""The WebSocket of a real node, and servers that are none."""

import asyncio
import ssl
from pathlib import Path

from relaymgr.operations.doctor.websocket_probe import Answer, try_all
from tests.support.certificates import write_certificate
from tests.support.node_process import NodeProcess, free_ports
from tests.support.waiting import wait_until


async def test_a_node_answers_over_tls_and_its_certificate_must_be_trusted(tmp_path: Path) -> None:
    chain, key = write_certificate(tmp_path, days=30)
    port = free_ports(1)
    with NodeProcess(WEBSOCKET_PORT=str(port), TLS_CERTIFICATE=str(chain), TLS_KEY=str(key)) as node:
        url = f"wss://localhost:{port}/relay/{node.client_port}"
        context = ssl.create_default_context(cafile=chain)
        await asyncio.to_thread(wait_until, lambda: asyncio.run(_tried(url, context)).error == "")
        found = await _tried(url, context)
        assert found.rtt_ms > 0
        assert found.expires_at is not None
        assert "certificate verify failed" in (await _tried(url, None)).error
        other = await _tried(f"wss://localhost:{port}/relay/1", context)
        assert "404" in other.error


async def test_another_server_is_no_node() -> None:
    async def not_a_websocket(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH\r\n" * 10)
        writer.close()

    server = await asyncio.start_server(not_a_websocket, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert (await _tried(f"ws://127.0.0.1:{port}/relay/1", None)).error
    assert (await _tried(f"ws://127.0.0.1:{port}/relay/1", None)).error  # refused


async def _tried(url: str, context: ssl.SSLContext | None) -> Answer:
    return (await try_all([url], context))[url]

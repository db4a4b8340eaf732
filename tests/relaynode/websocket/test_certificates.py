"""A renewed certificate is loaded while the node runs; a broken one is not."""

import asyncio
import contextlib
import ssl

import pytest
from cryptography import x509
from websockets.asyncio.client import connect as connect_websocket

from causeway_client.drivers.websocket_driver import exchange
from causeway_client.protocol import packets
from relaynode.websocket.certificates import Certificate
from tests.support.certificates import write_certificate
from tests.support.node_process import NodeProcess, free_ports
from tests.support.waiting import wait_until


def test_changed_files_are_loaded_once(tmp_path):
    found = Certificate(*map(str, write_certificate(tmp_path)))
    before = found.context
    assert not found.reload_if_changed()
    write_certificate(tmp_path, serial=2, days=30)
    expires_at = found.expires_at
    assert found.reload_if_changed()
    assert found.context is not before
    assert found.expires_at > expires_at
    assert not found.reload_if_changed()


@pytest.mark.parametrize("name", ["cert.pem", "key.pem"])
@pytest.mark.parametrize("content", [b"", b"-----BEGIN CERTIFICATE-----\n", None])
def test_broken_files_change_nothing(tmp_path, name, content):
    found = Certificate(*map(str, write_certificate(tmp_path)))
    before = found.context, found.expires_at
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises((OSError, ValueError)):
        found.reload_if_changed()
    assert (found.context, found.expires_at) == before
    assert not found.reload_if_changed()  # reported once
    write_certificate(tmp_path, serial=2)
    assert found.reload_if_changed()


def test_a_certificate_with_the_key_of_another_one_is_refused(tmp_path):
    found = Certificate(*map(str, write_certificate(tmp_path)))
    other = tmp_path / "other"
    other.mkdir()
    (tmp_path / "cert.pem").write_bytes(write_certificate(other)[0].read_bytes())
    with pytest.raises(ssl.SSLError):
        found.reload_if_changed()


async def test_a_renewed_certificate_is_used_without_closing_a_connection(tmp_path):
    chain, key = write_certificate(tmp_path)
    port = free_ports(1)
    settings = {"WEBSOCKET_PORT": str(port), "TLS_CERTIFICATE": str(chain), "TLS_KEY": str(key)}
    with NodeProcess(**settings) as node:
        url = f"wss://localhost:{port}/relay/{node.client_port}"
        await asyncio.to_thread(wait_until, lambda: _serial(port) == 1)
        async with connect_websocket(url, ssl=ssl.create_default_context(cafile=chain)) as before:
            write_certificate(tmp_path, serial=2)
            await asyncio.to_thread(wait_until, lambda: _serial(port) == 2)
            key.write_bytes(b"broken")
            await asyncio.to_thread(wait_until, lambda: "cannot be loaded" in node.log)
            assert "causeway_node_websocket_certificate_failures_total 1.0" in node.call("GET", "/metrics")[1]
            await asyncio.to_thread(wait_until, lambda: _serial(port) == 2)
            answer = await exchange(before, packets.Probe(bytes(16)).encode(), 30)
            assert packets.decode_probe_reply(answer).nonce == bytes(16)


def _serial(port: int) -> int:
    """Of the certificate that a new connection gets; 0: nothing listens yet, or this source has made too many."""
    with contextlib.suppress(OSError):
        pem = ssl.get_server_certificate(("localhost", port), timeout=30)
        return x509.load_pem_x509_certificate(pem.encode()).serial_number
    return 0

"""The limits of a connection, on a transport without a socket. test_slow_clients.py tests them on a real server."""

import asyncio
import ipaddress
from typing import Any

import pytest
from django.conf import LazySettings
from uvicorn import Config
from uvicorn.server import ServerState

from web.http import protocol
from web.http.protocol import MAX_HEADER_BYTES, BoundedProtocol


class Transport:
    def __init__(self, host: str) -> None:
        self.host = host
        self.is_aborted = False

    def get_extra_info(self, name: str) -> Any:
        return {"peername": (self.host, 40_000), "sockname": ("192.0.2.200", 8000)}.get(name)

    def abort(self) -> None:
        self.is_aborted = True

    def is_closing(self) -> bool:
        return self.is_aborted

    def close(self) -> None: ...


async def never(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.Event().wait()


def connect(host: str) -> tuple[BoundedProtocol, Transport]:
    config = Config(never, log_config=None, lifespan="off")
    config.load()
    made, transport = BoundedProtocol(config, ServerState(), {}), Transport(host)
    made.connection_made(transport)  # type: ignore[arg-type]
    return made, transport


@pytest.fixture(autouse=True)
def _no_connections(settings: LazySettings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.CONNECTIONS_PER_ADDRESS = 2
    settings.CLIENT_TIMEOUT = 60.0
    monkeypatch.setattr(protocol, "_connections", protocol.Counter())


async def test_an_address_gets_its_connections_back_when_they_end() -> None:
    held = [connect("192.0.2.1") for _ in range(3)]
    assert [transport.is_aborted for _, transport in held] == [False, False, True]
    assert not connect("192.0.2.2")[1].is_aborted
    for connection, _ in held[1:]:
        connection.connection_lost(None)
    assert not connect("192.0.2.1")[1].is_aborted


async def test_the_addresses_of_one_ipv6_network_are_counted_together() -> None:
    hosts = ["2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:0:1::1"]
    assert [connect(host)[1].is_aborted for host in hosts] == [False, False, True, False]


async def test_connections_of_a_trusted_proxy_are_not_counted(settings: LazySettings) -> None:
    settings.TRUSTED_PROXIES = [ipaddress.ip_network("10.0.0.0/8")]
    assert [connect("10.0.0.1")[1].is_aborted for _ in range(3)] == [False, False, False]


async def test_headers_beyond_the_limit_close_the_connection() -> None:
    connection, transport = connect("192.0.2.1")
    connection.data_received(b"GET / HTTP/1.1\r\nx: ")
    connection.data_received(b"a" * (MAX_HEADER_BYTES - 100))
    assert not transport.is_aborted
    connection.data_received(b"a" * 100)
    assert transport.is_aborted


async def test_headers_that_do_not_arrive_in_time_close_the_connection(settings: LazySettings) -> None:
    settings.CLIENT_TIMEOUT = 0.02
    connection, transport = connect("192.0.2.1")
    connection.data_received(b"GET / HT")
    await asyncio.sleep(0.1)
    assert transport.is_aborted


async def test_complete_headers_end_the_deadline(settings: LazySettings) -> None:
    settings.CLIENT_TIMEOUT = 0.02
    connection, transport = connect("192.0.2.1")
    connection.data_received(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    await asyncio.sleep(0.1)
    assert not transport.is_aborted
    connection.connection_lost(None)

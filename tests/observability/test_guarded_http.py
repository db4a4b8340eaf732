"""The limits of an HTTP server that unauthenticated sources can reach, without sockets."""

import asyncio
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from observability import guarded_http
from observability.connections import Unauthenticated
from observability.guarded_http import GuardedProtocol, authenticated


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 1234), "sockname": ("192.0.2.2", 80)})
        self.aborted = asyncio.Event()

    def abort(self) -> None:
        self.aborted.set()

    def write(self, data: Any) -> None:
        pass

    def close(self) -> None:
        pass

    def is_closing(self) -> bool:
        return self.aborted.is_set()


@pytest.fixture(autouse=True)
def room_for_two(monkeypatch: pytest.MonkeyPatch) -> Unauthenticated[GuardedProtocol]:
    connections: Unauthenticated[GuardedProtocol] = Unauthenticated(per_address=2, in_all=2)
    monkeypatch.setattr(GuardedProtocol, "unauthenticated", connections)
    return connections


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["headers"]:
        authenticated(scope)


def connect() -> tuple[GuardedProtocol, Transport]:
    config = uvicorn.Config(application, http=GuardedProtocol, log_config=None, lifespan="off")
    protocol = GuardedProtocol(config, ServerState(), {}, asyncio.get_running_loop())
    transport = Transport()
    protocol.connection_made(transport)
    return protocol, transport


async def is_aborted(transport: Transport) -> bool:
    return await asyncio.wait_for(transport.aborted.wait(), 5)


async def test_the_oldest_unauthenticated_connection_is_closed_for_a_new_one() -> None:
    connections = [connect() for _ in range(3)]
    assert [transport.aborted.is_set() for _, transport in connections] == [True, False, False]
    for protocol, _ in connections:
        protocol.connection_lost(None)


async def test_an_authenticated_connection_is_not_closed_for_others(
    room_for_two: Unauthenticated[GuardedProtocol],
) -> None:
    protocol, transport = connect()
    protocol.data_received(b"GET / HTTP/1.1\r\nAuthorization: Bearer key\r\n\r\n")
    async with asyncio.timeout(5):
        while len(room_for_two):
            await asyncio.sleep(0)
    others = [connect() for _ in range(3)]
    assert not transport.aborted.is_set()
    for each, _ in ((protocol, transport), *others):
        each.connection_lost(None)


async def test_a_slow_request_head_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarded_http, "HEAD_SECONDS", 0.01)
    protocol, transport = connect()
    protocol.data_received(b"GET / HTTP/1.1\r\nAuthor")
    assert await is_aborted(transport)
    protocol.connection_lost(None)


async def test_a_slow_request_body_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarded_http, "REQUEST_SECONDS", 0.01)
    protocol, transport = connect()
    protocol.data_received(b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nhalf")
    assert await is_aborted(transport)
    protocol.connection_lost(None)


async def test_a_closed_connection_does_not_count(room_for_two: Unauthenticated[GuardedProtocol]) -> None:
    protocol, _ = connect()
    assert len(room_for_two) == 1
    protocol.connection_lost(None)
    assert len(room_for_two) == 0

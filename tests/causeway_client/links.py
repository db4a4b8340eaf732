"""Every adapter in one shape, so that one suite can run against all of them.

A link is a seat's: `send(payload, to)` to a peer as `receive` named it (None: the host),
`receive() -> (peer, payload)`, and `failure()`, which waits until the adapter reports the end.
"""

import asyncio
import base64
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from causeway_client import asyncio_udp, blocking_udp
from causeway_client.edgegap import MAX_PAYLOAD as EDGEGAP_MAX_PAYLOAD
from causeway_client.edgegap import EdgegapClient, EdgegapHost, EdgegapRefused, EdgegapState, StateChanged
from causeway_client.protocol.errors import ConnectionFailed
from causeway_client.protocol.events import Received
from causeway_client.protocol.packets import MAX_PAYLOAD_BESIDE_EDGEGAP as MAX_PAYLOAD
from causeway_client.sidecar import ExitCode
from tests.causeway_client.granted import GrantedSession

ROOT = Path(__file__).parents[2]


class AsyncioLink:
    max_payload = MAX_PAYLOAD
    reports_errors = True

    async def open(self, session: GrantedSession, seat: int, **wrong: Any) -> "AsyncioLink":
        credentials = session.native(seat) | wrong
        self.connection = await asyncio_udp.connect("127.0.0.1", session.port(seat), **credentials)
        return self

    def send(self, payload: bytes, to: Any = None) -> None:
        self.connection.send(payload, to or 0)

    async def receive(self) -> tuple[Any, bytes]:
        return await self.connection.receive()

    async def failure(self) -> str:
        try:
            while True:
                await self.connection.receive()
        except ConnectionFailed as error:
            return error.code

    async def close(self) -> None:
        self.connection.close()


class TransportLink(asyncio.DatagramProtocol):
    """The asyncio adapter in the shape of a datagram transport."""

    max_payload = MAX_PAYLOAD
    reports_errors = True

    async def open(self, session: GrantedSession, seat: int, **wrong: Any) -> "TransportLink":
        self.arrived: asyncio.Queue[tuple[Any, bytes]] = asyncio.Queue()
        self.errors: list[Exception] = []
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        credentials = session.native(seat) | wrong
        self.transport, _ = await asyncio_udp.create_datagram_endpoint(
            lambda: self, "127.0.0.1", session.port(seat), **credentials
        )
        return self

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.arrived.put_nowait((addr, data))

    def error_received(self, exc: Exception) -> None:
        self.errors.append(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)

    def send(self, payload: bytes, to: Any = None) -> None:
        self.transport.sendto(payload, to)
        if self.errors:
            raise self.errors.pop()

    async def receive(self) -> tuple[Any, bytes]:
        return await self.arrived.get()

    async def failure(self) -> str:
        error = await self.lost
        assert isinstance(error, ConnectionFailed)
        return error.code

    async def close(self) -> None:
        self.transport.close()
        await self.lost


class BlockingLink:
    max_payload = MAX_PAYLOAD
    reports_errors = True

    async def open(self, session: GrantedSession, seat: int, **wrong: Any) -> "BlockingLink":
        credentials = session.native(seat) | wrong
        self.connection = blocking_udp.connect("127.0.0.1", session.port(seat), **credentials)
        self.arrived: list[Received] = []
        return self

    def poll(self) -> None:
        self.arrived += [event for event in self.connection.poll() if isinstance(event, Received)]

    def send(self, payload: bytes, to: Any = None) -> None:
        self.poll()
        self.connection.send(payload, to or 0)

    async def receive(self) -> tuple[Any, bytes]:
        while not self.arrived:
            self.poll()
            await asyncio.sleep(0.002)
        first = self.arrived.pop(0)
        return first.seat, first.payload

    async def failure(self) -> str:
        while self.connection.error is None:
            self.connection.poll()
            await asyncio.sleep(0.002)
        return self.connection.error.code

    async def close(self) -> None:
        self.connection.close()


class EdgegapLink:
    max_payload = EDGEGAP_MAX_PAYLOAD
    reports_errors = True

    async def open(self, session: GrantedSession, seat: int, **wrong: Any) -> "EdgegapLink":
        kind = EdgegapHost if seat == 0 else EdgegapClient
        credentials = session.edgegap(seat)
        if wrong:
            credentials["user_token"] ^= 0x100
        self.connection = kind("127.0.0.1", session.port(seat), **credentials)
        await self.connection.open()
        try:
            await self.connection.wait_valid()
        except ConnectionFailed:
            self.connection.close()
            raise
        return self

    def send(self, payload: bytes, to: Any = None) -> None:
        self.connection.send(payload, to or 0)

    async def receive(self) -> tuple[Any, bytes]:
        return await self.connection.receive()

    async def failure(self) -> str:
        async for event in self.connection.events():
            if isinstance(event, StateChanged) and event.state is not EdgegapState.VALID:
                return EdgegapRefused(event.state).code
        raise AssertionError("closed")

    async def close(self) -> None:
        self.connection.close()


class SidecarLink:
    """A sidecar process and, on a local socket, a game that knows nothing of it."""

    dialect = "native"
    max_payload = MAX_PAYLOAD
    reports_errors = False  # what is longer than a packet goes in fragments

    async def open(self, session: GrantedSession, seat: int, **wrong: Any) -> "SidecarLink":
        self.game = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.game.bind(("127.0.0.1", 0))
        self.game.setblocking(False)
        host, port = self.game.getsockname()
        sides = ["host", "--game", f"{host}:{port}"] if seat == 0 else ["join", "--listen", "127.0.0.1:0"]
        self.process = start_sidecar(session, seat, *sides, dialect=self.dialect, **wrong)
        self.peer = None if seat == 0 else await listening_address(self.process)
        if seat == 0:
            await ready_line(self.process)
        return self

    def send(self, payload: bytes, to: Any = None) -> None:
        self.game.sendto(payload, to or self.peer)

    async def receive(self) -> tuple[Any, bytes]:
        payload, source = await asyncio.get_running_loop().sock_recvfrom(self.game, 65_536)
        return source, payload

    async def failure(self) -> str:
        code = await asyncio.to_thread(self.process.wait, 10)
        return ExitCode(code).name.lower()

    async def close(self) -> None:
        self.process.terminate()
        assert await asyncio.to_thread(self.process.wait, 10) in set(ExitCode)
        assert self.process.stdout
        self.process.stdout.close()
        self.game.close()


class EdgegapSidecarLink(SidecarLink):
    dialect = "edgegap"
    max_payload = EDGEGAP_MAX_PAYLOAD


def start_sidecar(
    session: GrantedSession, seat: int, *arguments: str, dialect: str = "native", **wrong: Any
) -> "subprocess.Popen[bytes]":
    """Its standard output is a pipe; credentials go through the environment."""
    if dialect == "native":
        secrets = {name: base64.urlsafe_b64encode(value).decode() for name, value in session.native(seat).items()}
        secrets |= {name: base64.urlsafe_b64encode(value).decode() for name, value in wrong.items()}
    else:
        secrets = {name: str(value ^ (0x100 if wrong else 0)) for name, value in session.edgegap(seat).items()}
    environ = os.environ | {f"CAUSEWAY_{name.upper()}": value for name, value in secrets.items()}
    role, *rest = arguments
    relay = f"127.0.0.1:{session.port(seat)}"
    command = [sys.executable, "-m", "causeway_client.sidecar", role, "--relay", relay, "--dialect", dialect, *rest]
    return subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE)


async def ready_line(process: "subprocess.Popen[bytes]") -> str:
    """What the sidecar prints once it is connected; raises what it ended with."""
    assert process.stdout
    line = (await asyncio.wait_for(asyncio.to_thread(process.stdout.readline), 15)).decode().strip()
    if not line.startswith("ready: "):
        code = ExitCode(process.wait(10))
        process.stdout.close()
        raise SidecarFailed(code.name.lower(), "the sidecar ended")
    return line


class SidecarFailed(ConnectionFailed):
    """The sidecar ended instead of becoming ready."""


async def listening_address(process: "subprocess.Popen[bytes]") -> tuple[str, int]:
    host, _, port = (await ready_line(process)).rpartition(" ")[2].rpartition(":")
    return host, int(port)

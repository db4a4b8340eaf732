"""Players that go on sending whatever the node tells them, and note when anything still reaches them.

A well-behaved transport stops when it is revoked; what a node enforces shows only against one that does not.
"""

import asyncio
import base64
import os
import struct
import time
from typing import Any, Self

from causeway_client.protocol.connection import RelayConnection, State
from causeway_client.protocol.packets import PacketType

EDGEGAP_DATA = 2


class StubbornLink(asyncio.DatagramProtocol):
    """One seat on a raw socket. `arrivals` are the times (monotonic) at which game data reached it."""

    def __init__(self, session: dict[str, Any], seat: int) -> None:
        self.session, self.user = session, session["session_users"][seat]
        side = "server" if seat == 0 else "client"
        self.node = (session["relay"]["ip"], session["relay"]["ports"][side]["port"])
        self.arrivals: list[float] = []

    async def open(self) -> Self:
        loop = asyncio.get_running_loop()
        self.socket, _ = await loop.create_datagram_endpoint(lambda: self, remote_addr=self.node)
        return self

    def close(self) -> None:
        self.socket.close()


class StubbornEdgegap(StubbornLink):
    """Speaks edgegap; as host it answers every packet to the connection id it came with."""

    def __init__(self, session: dict[str, Any], seat: int) -> None:
        super().__init__(session, seat)
        tokens = struct.pack("<II", self.user["authorization_token"], session["authorization_token"])
        self._head = tokens + bytes((EDGEGAP_DATA,))
        self._is_host = seat == 0

    def send(self, payload: bytes) -> None:
        self.socket.sendto(self._head + payload)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if data[0] == EDGEGAP_DATA:
            self.arrivals.append(time.monotonic())
            if self._is_host:
                self.send(data[1:])  # connection id and payload, as they came


class StubbornNative(StubbornLink):
    """Connects by the book, then hears nothing but data."""

    async def open(self) -> Self:
        self._machine = RelayConnection(
            self.node,
            connect_token=_decode(self.user["connect_token"]),
            seat_key=_decode(self.user["seat_key"]),
            wall_clock=lambda: time.time_ns() // 1000,
            random=os.urandom,
        )
        await super().open()
        self._machine.connect(time.monotonic())
        deadline = time.monotonic() + 30
        while self._machine.state is not State.RELAYED:
            assert time.monotonic() < deadline, "not welcomed"
            self._transmit()
            await asyncio.sleep(0.002)
        return self

    def send(self, payload: bytes) -> None:
        self._machine.send(0, payload, time.monotonic())
        self._transmit()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if self._machine.state is not State.RELAYED:
            self._machine.receive_datagram(data, self.node, time.monotonic())
        elif data[0] == PacketType.DATA:
            self.arrivals.append(time.monotonic())

    def _transmit(self) -> None:
        for datagram, _ in self._machine.datagrams_to_send(time.monotonic()):
            self.socket.sendto(datagram)


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


async def open_stubborn(session: dict[str, Any], seat: int, dialect: str) -> StubbornEdgegap | StubbornNative:
    kind = StubbornEdgegap if dialect == "edgegap" else StubbornNative
    return await kind(session, seat).open()

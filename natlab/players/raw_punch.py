"""Hole punching and nothing else: what any protocol can at most do without further techniques.

It learns its outer address by STUN, and sends a probe to every candidate of the other side each 20 ms.
"""

import asyncio
import ipaddress
import os
import socket
from typing import Any

from causeway_client.protocol.errors import DecodeError
from causeway_client.protocol.paths import stun
from natlab.players.rounds import Round, run

INTERVAL = 0.02  # seconds between two probes to an address
STUN_INTERVAL, STUN_REPEATS = 0.2, 8
_PROBE, _ANSWER = b"p", b"a"
_NONCE_SIZE = 8
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}

Address = tuple[str, int]


class Puncher(asyncio.DatagramProtocol):
    """One unconnected socket."""

    def __init__(self, nonce: bytes) -> None:
        self.nonce = nonce  # of this player; packets to it begin with it
        self.outer: asyncio.Future[Address] = asyncio.get_running_loop().create_future()
        self.answered: asyncio.Future[Address] = asyncio.get_running_loop().create_future()
        self.peer_nonce = b""
        self.targets: dict[Address, None] = {}  # where the other side may be
        self.probed = 0  # probes of the other side that arrived

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        source = str(addr[0]), int(addr[1])
        if stun.is_stun(data):
            try:
                _, ip, port = stun.decode_response(data)
            except DecodeError:
                return
            if not self.outer.done():
                self.outer.set_result((ip, port))
        elif data == self.nonce + _PROBE and self.peer_nonce:
            self.transport.sendto(self.peer_nonce + _ANSWER, source)
            self.targets.setdefault(source)  # a mapping that no STUN server has seen
            self.probed += 1
        elif data == self.nonce + _ANSWER and not self.answered.done():
            self.answered.set_result(source)

    async def learn_outer(self, server: Address) -> Address | None:
        """None: there is no answer."""
        for _ in range(STUN_REPEATS):
            self.transport.sendto(stun.encode_request(os.urandom(stun.TRANSACTION_SIZE)), server)
            done, _ = await asyncio.wait([self.outer], timeout=STUN_INTERVAL)
            if done:
                return self.outer.result()
        return None


async def play(current: Round) -> None:
    nonce = os.urandom(_NONCE_SIZE)
    punchers, candidates = [], []
    try:
        for ip, port in current.config["stun"]:
            version = ipaddress.ip_address(ip).version
            if (own := _address_towards((ip, port), version)) is None:
                continue
            _, puncher = await asyncio.get_running_loop().create_datagram_endpoint(
                lambda: Puncher(nonce), local_addr=(own, 0), family=_FAMILIES[version]
            )
            punchers.append(puncher)
            candidates.append((own, puncher.transport.get_extra_info("sockname")[1]))
            outer = await puncher.learn_outer((ip, port))
            if outer is not None and outer not in candidates:
                candidates.append(outer)
        current.send_signal({"nonce": nonce.hex(), "candidates": candidates})
        await _punch(current, punchers, await current.next_signal())
    finally:
        for puncher in punchers:
            puncher.transport.close()


async def _punch(current: Round, punchers: list[Puncher], peer: dict[str, Any]) -> None:
    for puncher in punchers:
        puncher.peer_nonce = bytes.fromhex(peer["nonce"])
        is_ipv6 = puncher.transport.get_extra_info("socket").family == socket.AF_INET6
        puncher.targets = {(ip, port): None for ip, port in peer["candidates"] if (":" in ip) == is_ipv6}
    current.ready()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_probe(current, punchers))
        await asyncio.wait([puncher.answered for puncher in punchers], return_when=asyncio.FIRST_COMPLETED)
        puncher = next(puncher for puncher in punchers if puncher.answered.done())
        path = puncher.answered.result()
        current.direct(path[0])
        await current.silence.wait()
        before = puncher.probed

        async def send(_: bytes) -> None:
            puncher.transport.sendto(puncher.peer_nonce + _PROBE, path)

        await current.answer_check(send, lambda: puncher.probed - before)


async def _probe(current: Round, punchers: list[Puncher]) -> None:
    while not current.silence.is_set():
        for puncher in punchers:
            for target in list(puncher.targets):
                puncher.transport.sendto(puncher.peer_nonce + _PROBE, target)
        await asyncio.sleep(INTERVAL)


def _address_towards(server: Address, version: int) -> str | None:
    """The own address of the route to the server; None: there is no route."""
    try:
        with socket.socket(_FAMILIES[version], socket.SOCK_DGRAM) as probe:
            probe.connect(server)
            return str(probe.getsockname()[0])
    except OSError:
        return None


if __name__ == "__main__":
    run(play)

"""Sends the probes of supervision/peer_meter.py, and reads their answers."""

import asyncio
import contextlib
import socket

from nodeapi.peers import Peer

from ..supervision.peer_meter import PeerMeter

GAP = 1.0  # seconds without running after which outstanding probes are not counted


class PeerProber:
    """Probes each peer once in `interval` seconds, one after another, so that they are spread over it."""

    def __init__(self, meter: PeerMeter, interval: float) -> None:
        self._meter = meter
        self._interval = interval
        self._loop = asyncio.get_running_loop()
        self._sockets = {family: _socket(family) for family in (socket.AF_INET, socket.AF_INET6)}
        self._ran_at = self._loop.time()

    async def run(self) -> None:
        """Until cancelled."""
        for opened in self._sockets.values():
            if opened is not None:
                self._loop.add_reader(opened, self._read, opened)
        try:
            while True:
                await self._round()
        finally:
            for opened in self._sockets.values():
                if opened is not None:
                    self._loop.remove_reader(opened)
                    opened.close()

    async def _round(self) -> None:
        peers = self._meter.peers
        for peer in peers:
            for datagram in self._meter.probe(peer, self._loop.time()):
                self._send(datagram, peer)
            await self._pause(self._interval / len(peers))
        if not peers:
            await self._pause(self._interval)
        self._meter.give_up(self._loop.time())

    async def _pause(self, seconds: float) -> None:
        end = self._loop.time() + seconds
        while (left := end - self._loop.time()) > 0:
            await asyncio.sleep(min(left, GAP / 2))
            self._notice_gap()

    def _notice_gap(self) -> None:
        before, self._ran_at = self._ran_at, self._loop.time()
        if self._ran_at - before > GAP:
            self._meter.forget_pending()

    def _send(self, datagram: bytes, peer: Peer) -> None:
        opened = self._sockets[socket.AF_INET6 if ":" in peer.address else socket.AF_INET]
        with contextlib.suppress(OSError):  # no route is a loss like any other
            if opened is not None:
                opened.sendto(datagram, (peer.address, peer.port))

    def _read(self, opened: socket.socket) -> None:
        self._notice_gap()
        with contextlib.suppress(OSError):
            for _ in range(64):
                self._meter.receive_datagram(opened.recv(2048), self._loop.time())


def _socket(family: socket.AddressFamily) -> socket.socket | None:
    """None where the machine does not have the family."""
    try:
        opened = socket.socket(family, socket.SOCK_DGRAM)
    except OSError:
        return None
    opened.setblocking(False)
    return opened

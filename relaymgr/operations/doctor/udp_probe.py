"""Measures from here whether UDP ports of nodes are reachable, with the probes of players (PROTOCOL.md 11)."""

import asyncio
import os
import time
from collections.abc import Iterable
from typing import cast

from causeway_client.protocol.probing import Measurement, Prober

PROBES, INTERVAL_S, REPLY_TIMEOUT_S = 4, 0.1, 1.0
MAX_SOCKETS = 200

Port = tuple[str, int]  # address, port


async def measure_all(ports: Iterable[Port]) -> dict[Port, Measurement | OSError]:
    """The result for each port. OSError: sending failed, or an ICMP message reports that the port is closed."""
    slots, wanted = asyncio.Semaphore(MAX_SOCKETS), list(dict.fromkeys(ports))

    async def measure_one(port: Port) -> Measurement | OSError:
        async with slots:
            return await _measure(port)

    return dict(zip(wanted, await asyncio.gather(*map(measure_one, wanted)), strict=True))


async def _measure(port: Port) -> Measurement | OSError:
    loop = asyncio.get_running_loop()
    try:
        transport, exchange = await loop.create_datagram_endpoint(lambda: _Exchange(port), remote_addr=port)
    except OSError as error:
        return error
    try:
        return await exchange.run()
    finally:
        transport.close()


class _Exchange(asyncio.DatagramProtocol):
    """Drives a Prober on a connected socket: only a connected one reports ICMP errors."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self._prober = Prober(port, random=os.urandom, count=PROBES, interval=INTERVAL_S, reply_timeout=REPLY_TIMEOUT_S)
        self._icmp_error: OSError | None = None
        self._wake_up = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: object) -> None:
        self._prober.receive_datagram(data, self._port, time.monotonic())
        self._wake_up.set()

    def error_received(self, error: Exception) -> None:
        self._icmp_error = cast(OSError, error)
        self._wake_up.set()

    async def run(self) -> Measurement | OSError:
        self._prober.start(time.monotonic())
        while (event := self._prober.next_event()) is None:
            for datagram, _ in self._prober.datagrams_to_send(time.monotonic()):
                self._transport.sendto(datagram)
            if self._icmp_error:
                return self._icmp_error
            due = self._prober.next_timer()
            self._wake_up.clear()
            try:
                async with asyncio.timeout(max(0.0, (due or 0.0) - time.monotonic())):
                    await self._wake_up.wait()
            except TimeoutError:
                self._prober.handle_timer(time.monotonic())
        return cast(Measurement, event)

"""Whether the nodes' UDP ports can be reached from here: the exchange with which players measure (PROTOCOL.md 11)."""

import asyncio
import os
import time
from collections.abc import Iterable
from typing import cast

from causeway_client.protocol.probing import Measurement, Prober

PROBES, INTERVAL_S, REPLY_TIMEOUT_S = 4, 0.1, 1.0
AT_ONCE = 200  # sockets

Port = tuple[str, int]  # address, port


async def measure_all(ports: Iterable[Port]) -> dict[Port, Measurement | OSError]:
    """What came of each; OSError: it cannot even be sent to, or the machine says that nobody listens."""
    slots, wanted = asyncio.Semaphore(AT_ONCE), list(dict.fromkeys(ports))

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
    """Drives a Prober on a socket that is connected, so that an ICMP refusal reaches us."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self._prober = Prober(port, random=os.urandom, count=PROBES, interval=INTERVAL_S, reply_timeout=REPLY_TIMEOUT_S)
        self._refusal: OSError | None = None
        self._woken = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: object) -> None:
        self._prober.receive_datagram(data, self._port, time.monotonic())
        self._woken.set()

    def error_received(self, error: Exception) -> None:
        self._refusal = cast(OSError, error)
        self._woken.set()

    async def run(self) -> Measurement | OSError:
        self._prober.start(time.monotonic())
        while (event := self._prober.next_event()) is None:
            for datagram, _ in self._prober.datagrams_to_send(time.monotonic()):
                self._transport.sendto(datagram)
            if self._refusal:
                return self._refusal
            due = self._prober.next_timer()
            self._woken.clear()
            try:
                async with asyncio.timeout(max(0.0, (due or 0.0) - time.monotonic())):
                    await self._woken.wait()
            except TimeoutError:
                self._prober.handle_timer(time.monotonic())
        return cast(Measurement, event)

"""Has the router map the port of a socket: by PCP or NAT-PMP, and by UPnP if it knows neither. Nothing waits for it."""

import asyncio
import contextlib
import os
from collections.abc import Callable
from typing import cast

from ..protocol.events import Event
from ..protocol.paths.port_mapping import PORT, PortMapped, PortMapper
from . import udp_sockets, upnp
from .asyncio_driver import Driver

IpPort = tuple[str, int]

UPNP_AFTER = 1.0  # seconds without a mapping by PCP or NAT-PMP
UPNP_RENEWAL = upnp.LEASE / 2  # seconds; also until a router that has refused is asked again


class RouterMapping:
    """`on_changed` is called with the mapped address and the protocol ("pcp", "nat_pmp", "upnp"), or with None if there
    is no mapping any more."""

    def __init__(self, host: IpPort, on_changed: Callable[[IpPort | None, str], None]) -> None:
        self._host = host
        self._on_changed = on_changed
        self._driver: Driver | None = None
        self._upnp: asyncio.Task[None] | None = None
        self._is_mapped = False

    async def start(self) -> None:
        router = udp_sockets.default_router()
        if router is None:
            return
        mapper = PortMapper((router, PORT), *self._host, random=os.urandom)
        driver = Driver(mapper, lambda source, payload: None, self._answered)
        with contextlib.suppress(OSError):
            await driver.open()
            self._driver = driver
            mapper.start(driver.now)
            driver.pump()
        if upnp.is_available():
            self._upnp = asyncio.create_task(self._keep_upnp())

    def end(self) -> None:
        """Has the router forget the mapping."""
        if self._upnp is not None:
            self._upnp.cancel()
        if self._driver is not None:
            cast(PortMapper, self._driver.machine).stop()
            self._driver.pump()
            self._driver.close()
        self._driver = self._upnp = None

    def _answered(self, event: Event) -> None:
        if isinstance(event, PortMapped):
            self._is_mapped = event.ip is not None
            self._on_changed(None if event.ip is None else (event.ip, event.port), event.protocol)

    async def _keep_upnp(self) -> None:
        mapping, mapped = upnp.UpnpMapping(*self._host), None
        try:
            await asyncio.sleep(UPNP_AFTER)
            while not self._is_mapped:
                found = await asyncio.to_thread(mapping.open)
                if found != mapped and not self._is_mapped:
                    mapped = found
                    self._on_changed(mapped, "upnp")
                await asyncio.sleep(UPNP_RENEWAL)
        finally:
            asyncio.get_running_loop().run_in_executor(None, mapping.close)

"""A port mapping by UPnP (WANIPConnection:1), for routers that know neither PCP nor NAT-PMP. Needs the package
`miniupnpc` (the extra `upnp`). Its calls block for up to a few seconds, so an event loop makes them in a thread."""

import contextlib
import importlib.util
import threading
from typing import Any

LEASE = 7200  # seconds
DESCRIPTION = "Causeway"
DISCOVERY = 500  # milliseconds in which a router answers


def is_available() -> bool:
    """Whether the package `miniupnpc` is installed."""
    return importlib.util.find_spec("miniupnpc") is not None


class UpnpMapping:
    """The mapping of the UDP socket at (`host_ip`, `port`) of this machine. Any thread may call it."""

    def __init__(self, host_ip: str, port: int) -> None:
        self._host_ip, self._port = host_ip, port
        self._router: Any = None
        self._lock = threading.Lock()
        self._is_closed = False

    def open(self) -> tuple[str, int] | None:
        """Finds the router, and makes or renews the mapping: the address that it forwards. None: there is none."""
        # Every failure of the library, of the router and of its answers is a bare Exception.
        with self._lock, contextlib.suppress(Exception):
            if self._is_closed:
                return None
            if self._router is None:
                self._router = self._discover()
            ip = str(self._router.externalipaddress())
            with contextlib.suppress(Exception):
                return self._map(ip, LEASE)
            return self._map(ip, 0)  # some routers only know mappings without an end
        self._router = None
        return None

    def close(self) -> None:
        """Has the router forget the mapping."""
        self._is_closed = True
        with self._lock, contextlib.suppress(Exception):
            if self._router is not None:
                self._router.deleteportmapping(self._port, "UDP")

    def _discover(self) -> Any:
        import miniupnpc

        router = miniupnpc.UPnP(multicastif=self._host_ip, discoverdelay=DISCOVERY)
        router.discover()
        router.selectigd()
        return router

    def _map(self, ip: str, lease: int) -> tuple[str, int] | None:
        added = self._router.addportmapping(self._port, "UDP", self._host_ip, self._port, DESCRIPTION, "", lease)
        return (ip, self._port) if added and ip else None

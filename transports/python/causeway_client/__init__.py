"""The client of a Causeway relay: the native protocol, and adapters that carry a game's packets over it.

    from causeway_client import EVERYONE, connect

    async with await connect(host, port, connect_token=..., seat_key=...) as connection:
        connection.send(b"hello", target=EVERYONE)

These names are loaded when they are first used. A server that imports only `causeway_client.protocol` therefore loads
no socket code.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .asyncio_udp import Connection, connect, measure, measure_beacons
    from .protocol.errors import ConnectionFailed
    from .protocol.packets import EVERYONE
    from .protocol.probing import Measurement

__all__ = ["EVERYONE", "Connection", "ConnectionFailed", "Measurement", "connect", "measure", "measure_beacons"]

_MODULES = {
    "Connection": "asyncio_udp",
    "ConnectionFailed": "protocol.errors",
    "EVERYONE": "protocol.packets",
    "Measurement": "protocol.probing",
    "connect": "asyncio_udp",
    "measure": "asyncio_udp",
    "measure_beacons": "asyncio_udp",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

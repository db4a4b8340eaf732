"""Places that are joined by the NAT lab's wire, without NATs between them: namespaces with set delays and losses.

The first place is the namespace that the tests run in.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from natlab import wire as natlab_wire
from natlab.lab import missing
from natlab.namespaces import Namespace, ip, reaper, remove_stale
from natlab.wire import Line

LARGE = 500  # bytes of a packet


class Wire:
    """`places`: names, the first of which is the namespace that the tests run in."""

    def __init__(self, places: list[str]) -> None:
        # By process: tests run in several at once.
        network = f"10.{64 + os.getpid() % 128}.{os.getpid() // 128 % 256}"
        self._wire = natlab_wire.Wire(Line(delay_ms=1.0))
        self._address = {place: f"{network}.{index + 1}" for index, place in enumerate(places)}
        self._namespaces = {place: Namespace(place) for place in places[1:]}
        for index, (place, address) in enumerate(self._address.items()):
            device, namespace = f"cw{os.getpid() % 10_000}-{index}", self._namespaces.get(place)
            self._wire.attach(place, device, [f"{address}/32"], namespace)
            commands = [f"addr add {address}/24 dev {device}", f"link set {device} up"]
            ip(*commands, namespace="" if namespace is None else namespace.name)

    def address(self, place: str) -> str:
        return self._address[place]

    def namespace(self, place: str) -> str:
        return self._namespaces[place].name

    def join(
        self,
        a: str,
        b: str,
        *,
        delay_ms: float = 1.0,
        jitter_ms: float = 0.0,
        loss: float = 0.0,
        every: int = 0,
        loses_large: bool = False,
    ) -> None:
        """Both ways alike, from now on. `every`: each packet of this number is lost; 0: none. `loses_large`: all above
        LARGE bytes are."""
        longest = LARGE if loses_large else 0
        self._wire.set_line(a, b, Line(delay_ms, jitter_ms, loss, every, longest))

    def run_in(self, place: str, work: Callable[[], Any]) -> Any:
        """What `work` returns, run by a thread that is in the place's namespace."""
        return self._namespaces[place].call(work)

    def close(self) -> None:
        self._wire.close()
        for namespace in self._namespaces.values():
            namespace.remove()


@contextlib.contextmanager
def wire(places: list[str]) -> Iterator[Wire]:
    """Skips the test where this cannot be had; in CI that is a failure."""
    reason = missing()
    if reason and not os.environ.get("CI"):
        pytest.skip(reason)
    remove_stale()
    with reaper():
        made = Wire(places)
        try:
            yield made
        finally:
            made.close()

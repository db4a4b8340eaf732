import os
import select
import shutil
import socket
from collections.abc import Iterator

import pytest

from natlab import lab
from natlab.wire import Line


def needs(program: str) -> None:
    """Skips the test without it; in CI that is a failure."""
    if shutil.which(program) is None and not os.environ.get("CI"):
        pytest.skip(f"{program} is not installed")


@pytest.fixture(scope="module")
def internet() -> Iterator[lab.Lab]:
    """Skips the test where there can be no lab; in CI that is a failure."""
    reason = lab.missing()
    if reason and not os.environ.get("CI"):
        pytest.skip(reason)
    with lab.open_lab(Line(delay_ms=1)) as opened:
        yield opened


class Udp:
    """A UDP socket of a host."""

    def __init__(self, host: lab.Host, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> None:
        self._socket = host.namespace.call(lambda: socket.socket(family, socket.SOCK_DGRAM))
        self._socket.bind(("", port))
        self._socket.settimeout(5)

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    def send(self, data: bytes, address: tuple[str, int]) -> None:
        self._socket.sendto(data, address)

    def receive(self) -> tuple[bytes, tuple[str, int]]:
        """Raises TimeoutError after five seconds without a packet."""
        data, address = self._socket.recvfrom(2048)
        return data, address[:2]

    def received_before(self, last: bytes) -> list[bytes]:
        """What arrives until this packet does."""
        found = []
        while (data := self.receive()[0]) != last:
            found.append(data)
        return found

    def is_silent(self, seconds: float) -> bool:
        return not select.select([self._socket], [], [], seconds)[0]

    def close(self) -> None:
        self._socket.close()

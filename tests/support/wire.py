"""Network namespaces joined by a wire in user space, with set delays and losses: this is what netem would do, where the
kernel has none. Needs root and /dev/net/tun.

Each place is a namespace with one TUN device and one address; a thread carries the packets between the devices.
"""

import contextlib
import ctypes
import fcntl
import heapq
import os
import select
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
CLONE_NEWNET = 0x40000000
LARGE = 500  # bytes of a packet


@dataclass
class Line:
    """One way. `every`: each packet of this number is lost; 0: none. `loses_large`: all above LARGE bytes are."""

    delay_ms: float = 1.0
    every: int = 0
    loses_large: bool = False
    carried: int = 0

    def takes(self, size: int) -> bool:
        self.carried += 1
        is_unlucky = self.every > 0 and self.carried % self.every == 0
        return not is_unlucky and not (self.loses_large and size > LARGE)


class Wire:
    """`places`: names, the first of which is the namespace that the tests run in."""

    def __init__(self, places: list[str]) -> None:
        self.lines: dict[tuple[str, str], Line] = {}
        # By process: tests run in several at once.
        self._tag = f"cw{os.getpid() % 10_000}"
        network = f"10.{64 + os.getpid() % 128}.{os.getpid() // 128 % 256}"
        self._address = {place: f"{network}.{index + 1}" for index, place in enumerate(places)}
        self._places = places
        self._devices: dict[str, int] = {}
        self._running = True
        for place in places:
            self._devices[place] = self._open(place, is_here=place == places[0])
        self._by_address = {IPv4Address(address).packed: place for place, address in self._address.items()}
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def address(self, place: str) -> str:
        return self._address[place]

    def namespace(self, place: str) -> str:
        return f"{self._tag}-{place}"

    def join(self, a: str, b: str, **line: Any) -> None:
        """Both ways alike, from now on."""
        self.lines[a, b], self.lines[b, a] = Line(**line), Line(**line)

    def run_in(self, place: str, work: Callable[[], Any]) -> Any:
        """What `work` returns, run by a thread that is in the place's namespace."""

        def enter() -> Any:
            with open(f"/run/netns/{self.namespace(place)}") as opened:
                if ctypes.CDLL(None, use_errno=True).setns(opened.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            return work()

        with ThreadPoolExecutor(1) as threads:
            return threads.submit(enter).result()

    def close(self) -> None:
        self._running = False
        self._thread.join()
        for device in self._devices.values():
            os.close(device)
        for place in self._places[1:]:
            subprocess.run(["ip", "netns", "delete", self.namespace(place)], check=False)

    def _open(self, place: str, is_here: bool) -> int:
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        name = f"{self._tag}{self._places.index(place)}"
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
        inside: list[str] = []
        if not is_here:
            namespace = self.namespace(place)
            _ip("netns", "add", namespace)
            _ip("link", "set", name, "netns", namespace)
            inside = ["-n", namespace]
            _ip(*inside, "link", "set", "lo", "up")
        _ip(*inside, "addr", "add", f"{self._address[place]}/24", "dev", name)
        _ip(*inside, "link", "set", name, "up")
        return device

    def _carry(self) -> None:
        places = {device: place for place, device in self._devices.items()}
        waiting: list[tuple[float, int, int, bytes]] = []
        count = 0
        while self._running:
            pause = min(0.05, max(0.0, waiting[0][0] - time.monotonic())) if waiting else 0.05
            for device in select.select(list(places), [], [], pause)[0]:
                with contextlib.suppress(BlockingIOError):
                    for _ in range(64):
                        packet = os.read(device, 2048)
                        source, target = places[device], self._by_address.get(packet[16:20])
                        line = self.lines.get((source, target or ""), Line())
                        if packet[0] >> 4 == 4 and target and line.takes(len(packet)):
                            count += 1
                            at = time.monotonic() + line.delay_ms / 1000
                            heapq.heappush(waiting, (at, count, self._devices[target], packet))
            while waiting and waiting[0][0] <= time.monotonic():
                with contextlib.suppress(OSError):
                    os.write(waiting[0][2], waiting[0][3])
                heapq.heappop(waiting)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@contextlib.contextmanager
def wire(places: list[str]) -> Iterator[Wire]:
    """Skips the test where this cannot be had; in CI that is a failure."""
    try:
        if os.geteuid() or not Path("/dev/net/tun").exists():
            raise PermissionError("network namespaces need root and /dev/net/tun")
        made = Wire(places)
    except (OSError, subprocess.CalledProcessError) as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    try:
        yield made
    finally:
        made.close()

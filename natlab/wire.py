"""A wire in user space between network namespaces, with delays and losses: what netem would do, where the kernel has
none. Needs root and /dev/net/tun.

Each site has a TUN device, which is its way to all others; a thread carries the packets between the devices.
"""

import contextlib
import fcntl
import heapq
import itertools
import os
import random
import select
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_network

from natlab.namespaces import Namespace

_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_LONGEST = 2048  # bytes of a packet
_AT_ONCE = 64  # packets of a device before the next one is read
_MAX_WAITING = 100_000  # packets on the wire; further ones are lost

# Called with (source site, destination site, IP packet, time.monotonic()) when the wire delivers a packet.
Tap = Callable[[str, str, bytes, float], None]


@dataclass(frozen=True)
class Line:
    """What the wire does with packets in one direction between two sites."""

    delay_ms: float = 10.0
    jitter_ms: float = 0.0  # up to so much more, evenly distributed
    loss: float = 0.0  # share of packets that are lost, 0.0 to 1.0
    every: int = 0  # each packet of this number is lost; 0: none
    longest: int = 0  # IP packets with more bytes are lost; 0: none


class Wire:
    """`line`: that between all sites which have none of their own."""

    def __init__(self, line: Line, seed: int = 0) -> None:
        self.line = line
        self.taps: list[Tap] = []
        self.carried: Counter[tuple[str, str]] = Counter()  # packets, lost ones included
        self._random = random.Random(seed)
        self._lines: dict[tuple[str, str], Line] = {}
        self._devices: dict[int, str] = {}  # file descriptor -> site
        self._routes: dict[bytes, tuple[str, int]] = {}  # address or prefix -> site and file descriptor
        self._waiting: list[tuple[float, int, str, str, bytes, int]] = []
        self._order = itertools.count()
        self._lock = threading.Lock()
        self._wake_up, self._woken = os.pipe()
        self._thread = threading.Thread(target=self._carry, name="wire", daemon=True)
        self._thread.start()

    def attach(self, site: str, device: str, prefixes: Iterable[str], namespace: Namespace | None = None) -> None:
        """Creates the TUN device of a site, down and without an address. `prefixes`: those that are routed to it, as
        networks of /24 and /48 or single addresses. `namespace`: None for that of this process."""
        opened = namespace.call(lambda: _open_tun(device)) if namespace else _open_tun(device)
        with self._lock:
            self._devices[opened] = site
            for each in map(ip_network, prefixes):
                self._routes[each.network_address.packed[: each.prefixlen // 8]] = site, opened
        os.write(self._woken, b"x")

    def detach(self, site: str) -> None:
        """The device disappears, and its lines and counters with it; packets on their way to it are lost."""
        with self._lock:
            for opened in [opened for opened, name in self._devices.items() if name == site]:
                del self._devices[opened]
                self._waiting = [packet for packet in self._waiting if packet[5] != opened]
                heapq.heapify(self._waiting)
                os.close(opened)
            self._routes = {key: route for key, route in self._routes.items() if route[0] != site}
            self._lines = {way: line for way, line in self._lines.items() if site not in way}
            self.carried = Counter({way: count for way, count in self.carried.items() if site not in way})

    def set_line(self, one: str, other: str, line: Line) -> None:
        """In both directions, for packets that are sent from now on."""
        self._lines[one, other] = self._lines[other, one] = line

    def set_direction(self, source: str, target: str, line: Line) -> None:
        self._lines[source, target] = line

    @property
    def on_its_way(self) -> int:
        """Packets that have not been delivered yet."""
        with self._lock:
            return len(self._waiting)

    def close(self) -> None:
        os.close(self._woken)
        self._thread.join()
        for site in set(self._devices.values()):
            self.detach(site)
        os.close(self._wake_up)

    def _carry(self) -> None:
        while True:
            with self._lock:
                devices = list(self._devices)
                pause = max(0.0, self._waiting[0][0] - time.monotonic()) if self._waiting else None
            try:
                readable = select.select([self._wake_up, *devices], [], [], pause)[0]
            except OSError:  # a device was detached in between
                continue
            if self._wake_up in readable and not os.read(self._wake_up, _AT_ONCE):
                return
            with self._lock:
                for device in readable:
                    if device in self._devices:
                        self._read(device, self._devices[device])
                self._deliver()

    def _read(self, device: int, site: str) -> None:
        with contextlib.suppress(BlockingIOError):
            for _ in range(_AT_ONCE):
                packet = os.read(device, _LONGEST)
                if (route := self._route(packet)) is not None:
                    self._take(site, *route, packet)

    def _route(self, packet: bytes) -> tuple[str, int] | None:
        address, length = (packet[16:20], 3) if packet[0] >> 4 == 4 else (packet[24:40], 6)
        return self._routes.get(address) or self._routes.get(address[:length])

    def _take(self, source: str, target: str, device: int, packet: bytes) -> None:
        way = source, target
        self.carried[way] += 1
        line = self._lines.get(way, self.line)
        is_lost = (
            (line.every and self.carried[way] % line.every == 0)
            or (line.longest and len(packet) > line.longest)
            or (line.loss and self._random.random() < line.loss)
            or len(self._waiting) >= _MAX_WAITING
        )
        if not is_lost:
            delay_ms = line.delay_ms + (self._random.uniform(0, line.jitter_ms) if line.jitter_ms else 0.0)
            at = time.monotonic() + delay_ms / 1000
            heapq.heappush(self._waiting, (at, next(self._order), source, target, packet, device))

    def _deliver(self) -> None:
        while self._waiting and self._waiting[0][0] <= (now := time.monotonic()):
            _, _, source, target, packet, device = heapq.heappop(self._waiting)
            for tap in self.taps:
                tap(source, target, packet, now)
            with contextlib.suppress(OSError):
                os.write(device, packet)


def _open_tun(device: str) -> int:
    opened = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(opened, _TUNSETIFF, struct.pack("16sH", device.encode(), _IFF_TUN | _IFF_NO_PI))
    except OSError:
        os.close(opened)
        raise
    return opened

"""Asks the router to map a port: by PCP (RFC 6887, MAP), and by NAT-PMP (RFC 6886) if it knows only that. Sans-I/O.

    mapper = PortMapper(("192.168.1.1", 5351), "192.168.1.20", 50000, random=os.urandom)
    mapper.start(now)

The adapter treats it like every machine: it sends what `datagrams_to_send` returns, and so on. The event PortMapped has
the mapped address; the mapping is renewed at half of its lifetime. Nothing waits for it, and a router that does not
answer costs a few packets.
"""

import ipaddress
import struct
from collections import Counter, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from .. import events
from ..errors import DecodeError

Address = Hashable

PORT = 5351  # of a router
LIFETIME = 7200  # seconds; the router may grant less
REPEATS = (0.25, 0.5, 1.0)  # seconds after which an unanswered request is sent again
RETRY = 600.0  # seconds until a router that has not answered is asked again
MIN_LIFETIME = 60  # seconds
_UDP = 17
_PCP_VERSION, _PMP_VERSION = 2, 0
_MAP, _RESPONSE = 1, 0x80
_PMP_ADDRESS, _PMP_MAP_UDP = 0, 1
_PCP_HEAD = struct.Struct("!BBHI16s")
_PCP_ANSWER = struct.Struct("!BBBBII12x")
_PCP_MAP = struct.Struct("!12sB3xHH16s")
_PMP_MAP = struct.Struct("!BBHHHI")
_PMP_MAP_ANSWER = struct.Struct("!BBHIHHI")
_PMP_ADDRESS_ANSWER = struct.Struct("!BBHI4s")
_NONCE_SIZE = 12
_SUCCESS = 0


@dataclass(frozen=True, slots=True)
class PortMapped(events.Event):
    """The router forwards (`ip`, `port`) to the socket. None: it does not, or not any more."""

    ip: str | None
    port: int
    protocol: str  # "pcp" or "nat_pmp"


class PortMapper:
    """`node` is the address of the router. `random(n)` returns n bytes of a cryptographic generator."""

    def __init__(self, node: Address, host_ip: str, port: int, *, random: Callable[[int], bytes]) -> None:
        self.node = node
        self.dropped: Counter[str] = Counter()
        self._host = ipaddress.ip_address(host_ip)
        self._port = port
        self._nonce = random(_NONCE_SIZE)
        self._protocol = "pcp"
        self._repeats = 0
        self._timer: float | None = None
        self._mapped: tuple[str, int] | None = None
        self._suggested = port
        self._external_ip: str | None = None  # as NAT-PMP reports it
        self._is_waiting = False
        self._outgoing: list[tuple[bytes, Address]] = []
        self._events: deque[events.Event] = deque()

    def start(self, now: float) -> None:
        self._protocol, self._repeats = "pcp", 0
        self._request(now)

    def stop(self) -> None:
        """Asks the router to forget the mapping."""
        if self._mapped is not None:
            self._send_request(lifetime=0)
        self._timer = self._mapped = None
        self._is_waiting = False

    def receive_datagram(self, data: bytes, addr: Address, now: float) -> None:
        """Never raises."""
        try:
            self._receive(data, now)
        except DecodeError as error:
            self.dropped[error.reason] += 1

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Address]]:
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def next_timer(self) -> float | None:
        return self._timer

    def next_event(self) -> events.Event | None:
        return self._events.popleft() if self._events else None

    def handle_timer(self, now: float) -> None:
        if self._timer is None or now < self._timer:
            return
        if not self._is_waiting:  # to renew the mapping, or to ask the router again
            self._repeats = 0
        elif self._repeats > len(REPEATS):
            self._give_up(now)
            return
        elif self._protocol == "pcp" and self._mapped is None:
            self._protocol = "nat_pmp"  # a router that does not know PCP may also ignore it
        self._request(now)

    def _give_up(self, now: float) -> None:
        self._is_waiting = False
        self._protocol = "pcp"
        self._timer = now + RETRY
        self._lost()

    def _lost(self) -> None:
        if self._mapped is not None:
            self._mapped = None
            self._events.append(PortMapped(None, 0, self._protocol))

    # -- requests

    def _request(self, now: float) -> None:
        self._send_request(LIFETIME)
        self._is_waiting = True
        self._timer = now + REPEATS[min(self._repeats, len(REPEATS) - 1)]
        self._repeats += 1

    def _send_request(self, lifetime: int) -> None:
        if self._protocol == "pcp":
            self._outgoing.append((self._pcp_request(lifetime), self.node))
            return
        if lifetime:
            self._outgoing.append((bytes((_PMP_VERSION, _PMP_ADDRESS)), self.node))
        external = self._suggested if lifetime else 0
        request = _PMP_MAP.pack(_PMP_VERSION, _PMP_MAP_UDP, 0, self._port, external, lifetime)
        self._outgoing.append((request, self.node))

    def _pcp_request(self, lifetime: int) -> bytes:
        head = _PCP_HEAD.pack(_PCP_VERSION, _MAP, 0, lifetime, _as_ipv6(self._host))
        any_address = bytes(16) if self._host.version == 6 else bytes(10) + b"\xff\xff" + bytes(4)
        return head + _PCP_MAP.pack(self._nonce, _UDP, self._port, self._suggested, any_address)

    # -- answers

    def _receive(self, data: bytes, now: float) -> None:
        if len(data) < 2:
            raise DecodeError("too_short")
        if not self._is_waiting:
            raise DecodeError("unexpected")
        if data[0] == _PCP_VERSION and data[1] == _MAP | _RESPONSE and self._protocol == "pcp":
            self._receive_pcp(data, now)
        elif data[0] == _PMP_VERSION and data[1] & _RESPONSE:
            self._receive_pmp(data, now)
        else:
            raise DecodeError("unknown_type")

    def _receive_pcp(self, data: bytes, now: float) -> None:
        if len(data) < _PCP_ANSWER.size + _PCP_MAP.size:
            raise DecodeError("malformed")
        _, _, _, result, lifetime, _ = _PCP_ANSWER.unpack_from(data)
        nonce, protocol, internal, external, address = _PCP_MAP.unpack_from(data, _PCP_ANSWER.size)
        if (nonce, protocol, internal) != (self._nonce, _UDP, self._port):
            raise DecodeError("unknown_nonce")
        if result != _SUCCESS:
            self._give_up(now)
            return
        packed = ipaddress.IPv6Address(address)
        self._granted(str(packed.ipv4_mapped or packed), external, lifetime, now)

    def _receive_pmp(self, data: bytes, now: float) -> None:
        """A router that speaks only NAT-PMP also answers a PCP request, with its own version (RFC 6887, appendix A)."""
        kind = data[1] & ~_RESPONSE
        if self._protocol == "pcp":
            self._protocol, self._repeats = "nat_pmp", 0
            self._request(now)
            return
        if kind == _PMP_ADDRESS and len(data) >= _PMP_ADDRESS_ANSWER.size:
            _, _, result, _, packed = _PMP_ADDRESS_ANSWER.unpack_from(data)
            if result == _SUCCESS:
                self._external_ip = str(ipaddress.IPv4Address(packed))
            return
        if kind != _PMP_MAP_UDP or len(data) < _PMP_MAP_ANSWER.size:
            raise DecodeError("malformed")
        _, _, result, _, internal, external, lifetime = _PMP_MAP_ANSWER.unpack_from(data)
        if internal != self._port:
            raise DecodeError("unknown_nonce")
        if result != _SUCCESS:
            self._give_up(now)
        elif self._external_ip is not None:
            self._granted(self._external_ip, external, lifetime, now)

    def _granted(self, ip: str, port: int, lifetime: int, now: float) -> None:
        self._is_waiting = False
        self._suggested = port
        self._timer = now + max(lifetime, MIN_LIFETIME) / 2
        if self._mapped != (ip, port):
            self._mapped = ip, port
            self._events.append(PortMapped(ip, port, self._protocol))


def _as_ipv6(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bytes:
    return address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed

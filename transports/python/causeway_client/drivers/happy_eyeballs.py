"""Which of a relay's addresses can be reached (RFC 8305, "Happy Eyeballs").

A machine may have an IPv6 address without connectivity. A seat has one connection, and a second CONNECT replaces the
first, so the addresses are raced with probes instead of CONNECTs. The first address has a head start of 250 ms. The
address whose probe is answered first is used first.
"""

import os
import selectors
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from ..credentials import Standby, decode_secret
from ..protocol import packets
from ..protocol.errors import DecodeError
from ..protocol.relays.standby_relay import StandbyRelay

HEAD_START = 0.25  # RFC 8305, 5: "Connection Attempt Delay"
TIMEOUT = 1.5

SocketAddress = tuple[Any, ...]

# select accepts no file descriptor above 1023, and a game may have more.
_Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)


def resolve(hosts: str | Iterable[str], port: int) -> list[SocketAddress]:
    """The socket addresses of one or several names or IP literals, without duplicates, the families alternating. Blocks
    while names are resolved. Raises OSError if there is no address."""
    found: list[SocketAddress] = []
    failure: OSError | None = None
    for host in [hosts] if isinstance(hosts, str) else hosts:
        try:
            found += [sockaddr for *_, sockaddr in socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)]
        except OSError as error:
            failure = error
    if not found:
        raise failure or OSError("no address")
    return interleaved(list(dict.fromkeys(found)))


def interleaved(addresses: Sequence[SocketAddress]) -> list[SocketAddress]:
    """The addresses with the families alternating, beginning with that of the first (RFC 8305, 4)."""
    first = [address for address in addresses if len(address) == len(addresses[0])]
    second = [address for address in addresses if len(address) != len(addresses[0])]
    return [address for pair in zip_longest(first, second) for address in pair if address is not None]


def other_family(addresses: Iterable[SocketAddress], address: SocketAddress) -> SocketAddress | None:
    """The first of the addresses whose family is not that of `address`, as (IP, port): the form in which the adapters
    pass the source of a datagram to a machine."""
    return next((other[:2] for other in addresses if (":" in other[0]) != (":" in address[0])), None)


def resolve_standby(given: Standby | Mapping[str, Any] | None, like: SocketAddress) -> StandbyRelay | None:
    """The standby relay with its socket addresses, first the one whose family is that of `like`; None if its name does
    not resolve: a session can do without it. Blocks while names are resolved. Raises CredentialsError."""
    standby = Standby.of(given)
    if standby is None:
        return None
    try:
        addresses = resolve(standby.host, standby.port)
    except OSError:
        return None
    first = next((it for it in addresses if len(it) == len(like)), addresses[0])
    return StandbyRelay(first, decode_secret(standby.connect_token), other_family(addresses, first))


def reachable_first(
    addresses: Sequence[SocketAddress], *, head_start: float = HEAD_START, timeout: float = TIMEOUT
) -> list[SocketAddress]:
    """Sorts the address that answers first to the front; returns the order unchanged if none answers within `timeout`
    seconds. Blocks. Sends nothing if there is only one address."""
    if len(addresses) < 2:
        return list(addresses)
    with _Race(addresses) as race:
        winner = race.run(head_start, timeout)
    return list(addresses) if winner is None else [winner, *(each for each in addresses if each != winner)]


class _Race:
    def __init__(self, addresses: Sequence[SocketAddress]) -> None:
        self._waiting = list(addresses)
        self._running: dict[socket.socket, tuple[SocketAddress, bytes]] = {}
        self._selector = _Selector()

    def __enter__(self) -> "_Race":
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        for runner in self._running:
            runner.close()

    def run(self, head_start: float, timeout: float) -> SocketAddress | None:
        deadline = time.monotonic() + timeout
        while (now := time.monotonic()) < deadline:
            self._send_again()  # a probe may have been lost
            while self._waiting and not self._start(self._waiting.pop(0)):
                pass
            if not self._running:
                return None
            turn = min(now + head_start, deadline)
            while (left := turn - time.monotonic()) > 0:
                if winner := self._first_answer(left):
                    return winner
                if not self._running:
                    break  # refused: start the next address at once
        return None

    def _start(self, address: SocketAddress) -> bool:
        runner = socket.socket(socket.AF_INET6 if len(address) == 4 else socket.AF_INET, socket.SOCK_DGRAM)
        nonce = os.urandom(16)
        try:
            runner.setblocking(False)
            runner.connect(address)
            runner.send(packets.Probe(nonce).encode())
        except OSError:  # no route, or the family is not available
            runner.close()
            return False
        self._running[runner] = address, nonce
        self._selector.register(runner, selectors.EVENT_READ, runner)
        return True

    def _send_again(self) -> None:
        for runner, (_, nonce) in list(self._running.items()):
            try:
                runner.send(packets.Probe(nonce).encode())
            except OSError:
                self._drop(runner)

    def _first_answer(self, timeout: float) -> SocketAddress | None:
        for key, _ in self._selector.select(timeout):
            runner: socket.socket = key.data
            try:
                data = runner.recv(packets.MAX_DATAGRAM + 1)
            except BlockingIOError:
                continue
            except OSError:  # port unreachable
                self._drop(runner)
                continue
            address, nonce = self._running[runner]
            if _is_answer(data, nonce):
                return address
        return None

    def _drop(self, runner: socket.socket) -> None:
        self._selector.unregister(runner)
        del self._running[runner]
        runner.close()


def _is_answer(data: bytes, nonce: bytes) -> bool:
    try:
        return data[:1] == bytes([packets.PacketType.PROBE_REPLY]) and packets.decode_probe_reply(data).nonce == nonce
    except DecodeError:
        return False

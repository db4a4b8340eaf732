"""The same packets through both paths: a Relay alone, and one with the program before it, run on each packet by bpf(2).

Frames come in and are compared as they leave; what the program passes up goes to its Relay, as a socket would bring it.
Time stands still between `at` calls, for both the same.
"""

import ctypes
import errno
import functools
import itertools
import os
import random
import socket
import struct
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from relaynode.core.addresses import ADDRESS_SIZE, CLIENT_PORT, SERVER_PORT, Address, Outgoing, ip_and_port
from relaynode.core.grants import GrantRefused, read_grant
from relaynode.core.relay import Relay, RelayConfig
from relaynode.datapath.buffers import ReceiveBatch, SendBatch
from relaynode.datapath.fast_path import FastPath
from relaynode.datapath.xdp import bpf, loader
from relaynode.datapath.xdp.maps import XdpMirror, native_binding
from tests.relaynode.datapath.xdp.frames import Datagram, Endpoint, frame, read_frame

NOW = 1_795_257_600.0
OUR_PORTS = (31_000, 31_001)
SERVER = {4: "10.0.0.1", 6: "fd00::1"}
_PASS, _TX, _DROP = 2, 3, 1
_NEXT_KEY = 4  # of bpf(2)

Sent = tuple[Endpoint, Endpoint, bytes]  # from, to, datagram


def by_way(sent: Iterable[Sent]) -> list[Sent]:
    """What goes from one of our ports to one address keeps its order, and nothing depends on any other order."""
    return sorted(sent, key=lambda it: (it[0].ip, it[0].port, it[1].ip, it[1].port))


def kernel_available() -> str:
    """ "" when eBPF can be used here; else why not. In CI it must be."""
    try:
        loader.SeatPrograms(max_seats=16).close()
    except bpf.BpfError as error:
        return error.reason
    return ""


def needs_kernel() -> Any:
    reason = kernel_available()
    assert not reason or os.environ.get("CI") != "true", f"the XDP path must be tested in CI: {reason}"
    return pytest.mark.skipif(bool(reason), reason=f"no XDP path here: {reason}")


class Loaded:
    """Programs to be used again: loading them takes most of a second, emptying their maps some milliseconds."""

    def __init__(self) -> None:
        self._shapes = loader.read_object().maps
        self._spare: dict[int, list[loader.SeatPrograms]] = {}  # by their entries

    def take(self, max_seats: int) -> loader.SeatPrograms:
        spare = self._spare.get(max_seats + loader.SeatPrograms.SPARE)
        return spare.pop() if spare else loader.SeatPrograms(max_seats)

    def give_back(self, programs: loader.SeatPrograms) -> None:
        """Those whose sessions have all been removed."""
        for name, map_ in programs.maps.items():
            shape = self._shapes[name]
            if shape.kind == bpf.HASH:
                assert _is_empty(map_), f"{name} keeps what has ended"
            else:
                nothing = bytes(len(map_.get(bytes(4)) or b""))
                for index in range(shape.entries or programs.entries):
                    map_.put(struct.pack("=I", index), nothing)
        self._spare.setdefault(programs.entries, []).append(programs)


def _is_empty(hash_: bpf.Map) -> bool:
    key = ctypes.create_string_buffer(16)
    try:
        bpf._bpf("cannot read a map", _NEXT_KEY, struct.pack("=IIQQ", hash_.fd, 0, 0, ctypes.addressof(key)))
    except bpf.BpfError as error:
        return error.errno == errno.ENOENT
    return False


_loaded = Loaded()


@functools.lru_cache(maxsize=4096)
def address(peer: Endpoint, local: str) -> bytes:
    """As recvmmsg gives it on a socket for IPv4 and IPv6 (batching)."""
    mapped = peer.packed if ":" in peer.ip else bytes(10) + b"\xff\xff" + peer.packed
    ours = Endpoint(local, 0).packed
    ours = ours if ":" in local else bytes(10) + b"\xff\xff" + ours
    name = struct.pack("=H", 10) + peer.port.to_bytes(2, "big") + bytes(4) + mapped + bytes(4)
    return (name.ljust(32, b"\0") + struct.pack("=QII", 36, 41, 50) + ours).ljust(ADDRESS_SIZE, b"\0")


@functools.lru_cache(maxsize=4096)
def endpoint_of(addr: Address) -> Endpoint:
    return Endpoint(*ip_and_port(addr))


@functools.lru_cache(maxsize=4096)
def local_of(addr: bytes) -> str:
    return ip_and_port(bytes((10, 0)) + bytes(6) + addr[48:64])[0]


def randomness(seed: int) -> Callable[[int], bytes]:
    return random.Random(seed).randbytes


class Refused:
    def __init__(self, error: GrantRefused) -> None:
        self.error = error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Refused) and other.error.code == self.error.code


def _result(act: Callable[[Relay], Any], relay: Relay) -> Any:
    try:
        return act(relay)
    except GrantRefused as error:
        return Refused(error)


class Twin:
    """A core, and what its datagrams look like from outside."""

    relay: Relay

    def outgoing(self, outgoing: Iterable[Outgoing]) -> list[Sent]:
        return [(Endpoint(local_of(addr), OUR_PORTS[port]), endpoint_of(addr), data) for port, data, addr in outgoing]

    def counters(self) -> dict[str, int]:
        return self.relay.counters.as_dict()


class Userspace(Twin):
    """The core behind its fast path, with the buffers of a socket. `passed` counts what went on to the core."""

    def __init__(self, seed: int, config: RelayConfig) -> None:
        self.relay = Relay(worker=0, config=config, random=randomness(seed))
        self._received = ReceiveBatch(socket.AF_INET6)
        self._send_batches = tuple(SendBatch(socket.AF_INET6, self._flush) for _ in OUR_PORTS)
        self._fast_path = FastPath(self.relay._forwarder, self._to_core, (self._send_batches[0], self._send_batches[1]))
        self._sent: list[Outgoing] = []
        self.passed = 0

    def receive(self, datagram: Datagram, raw: bytes, now: float) -> list[Sent]:
        """`raw`: the frame it came in."""
        self._received.put(0, datagram.payload, address(datagram.source, datagram.destination.ip))
        self._fast_path.run(self._received, self._received.sizes(1), OUR_PORTS.index(datagram.destination.port), now)
        self._flush()
        sent, self._sent = self._sent, []
        return self.outgoing(sent)

    def _to_core(self, data: bytes, addr: Address, port: int, now: float) -> Outgoing | None:
        self.passed += 1
        return self.relay.receive_datagram(data, addr, port, now)

    def _flush(self) -> None:
        for port, batch in enumerate(self._send_batches):
            for place, size, addr in zip(batch.pieces[::2], batch.pieces[1::2], batch.names, strict=True):
                self._sent.append((port, ctypes.string_at(place, size), addr))
            batch.clear()


class Xdp(Twin):
    """The core behind the program. `forwarded` counts what that did by itself, `passed` what it passed up."""

    def __init__(self, seed: int, config: RelayConfig) -> None:
        self._programs = _loaded.take(config.max_seats)
        self.mirror = XdpMirror(self._programs, our_ports=OUR_PORTS, clock_offset=NOW - 1000)
        self.relay = Relay(worker=0, config=config, random=randomness(seed), mirror=self.mirror)
        self._program = bpf.Runner(self._programs.relay, 2048)
        self.forwarded = self.passed = 0
        self.at(NOW)

    def at(self, now: float) -> None:
        self.mirror.stop_clock(now)

    def close(self) -> None:
        for session in self.relay._forwarder.table.sessions.values():
            self.mirror.session_removed(session)
        _loaded.give_back(self._programs)

    def receive(self, datagram: Datagram, raw: bytes, now: float) -> list[Sent]:
        verdict, out = self._program.run(raw)
        if verdict == _TX:
            self.forwarded += 1
            sent = read_frame(out)
            return [(sent.source, sent.destination, sent.payload)]
        if verdict == _DROP:
            return []
        assert verdict == _PASS
        assert out == raw, "what is passed up is untouched"
        self.passed += 1
        port = OUR_PORTS.index(datagram.destination.port)
        addr = address(datagram.source, datagram.destination.ip)
        first = self.relay.receive_datagram(datagram.payload, addr, port, now)
        return self.outgoing(([first] if first else []) + self.relay.datagrams_to_send())

    def counters(self) -> dict[str, int]:
        totals = dict(super().counters())
        for name, count in self.mirror.counters().items():
            totals[name] += count
        return totals


class Twins:
    def __init__(self, seed: int = 1, config: RelayConfig | None = None, version: int = 4) -> None:
        config = config or RelayConfig(max_seats=256)
        self.userspace, self.xdp = Userspace(seed, config), Xdp(seed, config)
        self.version = version
        self.now = NOW

    @property
    def both(self) -> tuple[Userspace, Xdp]:
        return self.userspace, self.xdp

    def each(self, act: Callable[[Relay], Any]) -> Any:
        """Do it to both; the result must be the same."""
        results = [_result(act, twin.relay) for twin in self.both]
        assert results[0] == results[1]
        if isinstance(results[0], Refused):
            raise results[0].error
        return results[0]

    def at(self, now: float) -> list[Sent]:
        """Let time pass. What the cores send by themselves."""
        self.now = now
        self.xdp.at(now)
        self.each(lambda relay: relay.handle_timer(now))
        return self.drain()

    def grant(self, grant: dict[str, Any]) -> int:
        revision: int = self.each(lambda relay: relay.apply_grant(read_grant(grant), self.now))
        self.drain()
        return revision

    def drain(self) -> list[Sent]:
        sent = [twin.outgoing(twin.relay.datagrams_to_send()) for twin in self.both]
        assert by_way(sent[0]) == by_way(sent[1])
        assert [twin.relay.next_event() for twin in self.both] == [None, None] or self._same_events()
        return sent[0]

    def _same_events(self) -> bool:
        while True:
            first, second = (twin.relay.next_event() for twin in self.both)
            assert first == second
            if first is None:
                return True

    def send(
        self,
        source: Endpoint,
        payload: bytes,
        port: int,
        *,
        with_checksum: bool = True,
        raw: Callable[[bytes], bytes] = lambda data: data,
    ) -> list[Sent]:
        """A player's datagram to our server or client port (0 or 1), through both. `raw` may spoil the frame."""
        datagram = Datagram(source, Endpoint(SERVER[6 if ":" in source.ip else 4], OUR_PORTS[port]), payload)
        data = raw(frame(datagram, with_checksum))
        sent = [twin.receive(datagram, data, self.now) for twin in self.both]
        assert by_way(sent[0]) == by_way(sent[1]), f"sent differently: {sent[0]} and {sent[1]}"
        return sent[0]

    def close(self) -> None:
        self.xdp.close()

    def assert_same(self) -> None:
        """Counters, and all that the tables say."""
        assert self.userspace.counters() == self.xdp.counters()
        assert self.each(lambda relay: relay.stats())
        tables = [twin.relay._forwarder.table for twin in self.both]
        for name, session in tables[0].sessions.items():
            other = tables[1].sessions[name]
            for seat, twin in itertools.zip_longest(session.seats.values(), other.seats.values()):
                tables[1].mirror.refresh(twin)
                assert abs(seat.last_received - twin.last_received) < 1e-5
                for field in ("addr", "port", "revoked"):
                    assert getattr(seat, field) == getattr(twin, field), field
                for field in ("candidate", "connection_id", "prefix"):
                    assert getattr(seat.edgegap, field) == getattr(twin.edgegap, field), field
                native, twin_native = native_binding(seat), native_binding(twin)
                assert (native is None) == (twin_native is None)
                if native is not None and twin_native is not None:
                    assert native.totals() == twin_native.totals()
                    twin_native.window.complete(0)
                    assert native.window.highest == twin_native.window.highest
        assert [len(table.sessions) for table in tables] == [len(tables[0].sessions)] * 2


__all__ = ["CLIENT_PORT", "NOW", "OUR_PORTS", "SERVER", "SERVER_PORT", "Twins", "needs_kernel"]

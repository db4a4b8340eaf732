"""XdpMirror: a copy of the seat table in the maps of the XDP program.

Index entries (token pair, connection id, a host's id for a player) may be added and removed at any time, because a
seat's rule alone decides whether anything is forwarded. Rules, and all values that the program changes, too, are
written through the program `gate` under the same lock. With plain map updates of bpf(2), the program could read a value
that is only half written.
"""

import struct

from causeway_client.protocol.packets import PacketType, seal
from causeway_client.protocol.replay_window import ReplayWindow

from ...core.addresses import LOCAL_IP, Address, packed_ip
from ...core.dialects.native_binding import NativeBinding
from ...core.seat_table import INDEX_MASK
from ...core.seats import Mirror, Seat, Session
from . import bpf, loader
from .layout import DIALECT_AT, REQUEST, RULE, SEAT

_NAME = struct.Struct("<II")
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")

_SET_SEAT, _SET_SESSION, _ACCEPT, _NUMBER, _TAKE, _SKIP_SENT, _CLOSE_WINDOW = range(7)
_ABSENT, _EDGEGAP, _NATIVE = range(3)
_DATA = int(PacketType.DATA)
_ABSENT_RULE = bytes(RULE.size)
_IS_NUMBER = 1 << 31
_COUNTERS = ("forwarded_packets", "forwarded_bytes", "drop_rate_limited")
_ANEW_CONNECTION, _ANEW_QUOTA = 1, 2
_BUSY, _DONE = 1, 2  # what the gate returns: XDP_DROP, XDP_PASS
_SECOND = 1_000_000_000


class XdpWindow(ReplayWindow):
    """The replay window of a connection, which the program keeps."""

    __slots__ = ("_mirror", "_slot")

    def __init__(self, mirror: "XdpMirror", slot: int) -> None:
        self._mirror = mirror
        self._slot = slot
        super().__init__()

    def complete(self, low: int) -> int:
        self.highest = self._mirror.read(self._slot).highest
        return super().complete(low)

    def is_new(self, number: int) -> bool:
        """Marks the number, too, as the program may process packets of the same player at the same time."""
        return bool(self._mirror.ask(_ACCEPT, self._slot, number))

    def mark(self, number: int) -> None:
        self.highest = max(self.highest, number)

    def close(self, number: int) -> None:
        self._mirror.ask(_CLOSE_WINDOW, self._slot, number)


class XdpNativeBinding(NativeBinding):
    """A connection whose sequence numbers the program assigns, too."""

    __slots__ = ("_mirror", "_slot")

    def __init__(
        self,
        mirror: "XdpMirror",
        slot: int,
        connection: int,
        seat: Seat,
        up_key: bytes,
        down_key: bytes,
        player_nonce: bytes,
        path_key: bytes,
    ) -> None:
        super().__init__(connection, seat, up_key, down_key, player_nonce, path_key)
        self._mirror = mirror
        self._slot = slot
        self.window = XdpWindow(mirror, slot)

    def encode(self, source: Seat, payload: bytes, now: float) -> bytes | None:
        return self.seal(_DATA, source.number, payload)

    def seal(self, kind: int, seat: int, body: bytes) -> bytes:
        number = self._mirror.ask(_NUMBER, self._slot)
        return seal(self.send_key, kind, self.id, number, seat, body)

    def progress(self) -> bytes:
        return self._mirror.read_value(self._slot)[RULE.size :]

    def set_progress(self, packed: bytes) -> None:
        value = self._mirror.read_value(self._slot)
        if len(packed) != len(value) - RULE.size:
            raise ValueError("not the progress of such a connection")
        self._mirror.write_value(self._slot, value[: RULE.size] + packed)

    def totals(self) -> tuple[int, int]:
        state = self._mirror.read(self._slot)
        return state.sent, state.received


class SeatState:
    """The state of a seat that the program keeps. Times are nanoseconds of the monotonic clock."""

    __slots__ = ("highest", "last_received", "received", "sent")

    def __init__(self, value: bytes) -> None:
        _, _, self.last_received, self.received, self.sent, self.highest, _ = SEAT.unpack_from(value)


class _Kept:
    """The entries of a seat in the maps."""

    __slots__ = ("begun", "connection", "name", "pair", "received", "rule", "slot")

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.pair: int | None = None
        self.connection: int | None = None  # by which packets find the seat
        self.begun: int | None = None  # the connection whose sequence numbers the program counts
        self.name = 0  # its connectionId at an edgegap host
        self.rule = _ABSENT_RULE
        self.received = 0  # at the last refresh


class XdpMirror(Mirror):
    """Keeps the maps of `programs`, which are empty at first.

    `our_ports`: the server and the client port. `clock_offset`: the core's time minus the monotonic clock.
    """

    def __init__(self, programs: loader.SeatPrograms, *, our_ports: tuple[int, int], clock_offset: float) -> None:
        self._program = programs.relay
        self._maps = programs.maps
        self._gate = bpf.Runner(programs.gate, REQUEST.size + RULE.size)
        self._port_numbers = our_ports
        self._our_ports = tuple(port.to_bytes(2, "big") for port in our_ports)
        self._clock_offset = clock_offset
        self._kept: dict[Seat, _Kept] = {}
        self._free_slots = list(range(programs.entries - 1, 0, -1))
        self._session_slots: dict[Session, int] = {}
        self._free_session_slots = self._free_slots.copy()

    def serve(self, ports: loader.PortTable) -> None:
        """Direct the packets to our ports to the program."""
        for port in self._port_numbers:
            ports.put(port, self._program)

    def withdraw(self, ports: loader.PortTable) -> None:
        """Direct the packets to our ports to the sockets."""
        for port in self._port_numbers:
            ports.remove(port)

    def stop_clock(self, now: float) -> None:
        """Stop the program's clock at `now`, in the core's time. For tests."""
        self._maps["clock"].put(bytes(4), _U64.pack(round((now - self._clock_offset) * _SECOND)))

    def counters(self) -> dict[str, int]:
        """The program's counters, under the names of the core's."""
        return {name: self._count(which) for which, name in enumerate(_COUNTERS)}

    # -- the interface of seats.Mirror

    def seat_changed(self, seat: Seat) -> None:
        kept = self._kept.get(seat)
        if kept is None:
            if seat.addr is None:
                return
            kept = self._keep(seat)
        rule = self._rule(seat)
        if rule != kept.rule:
            self._set_rule(seat, kept, rule)
        self._index(seat, kept)

    def session_changed(self, session: Session) -> None:
        if session in self._session_slots:
            self._set_session(session, 0)
        for seat in session.seats.values():
            self.seat_changed(seat)

    def session_removed(self, session: Session) -> None:
        for seat in session.seats.values():
            kept = self._kept.pop(seat, None)
            if kept is not None:
                self._unindex(seat, kept)
                self._free_slots.append(kept.slot)
        slot = self._session_slots.pop(session, None)
        if slot is not None:
            self._free_session_slots.append(slot)

    def refresh(self, seat: Seat) -> None:
        kept = self._kept.get(seat)
        if kept is None:
            return
        state = self.read(kept.slot)
        if state.received != kept.received:
            kept.received = state.received
            seat.last_received = max(seat.last_received, state.last_received / _SECOND + self._clock_offset)
            seat.edgegap.candidate = None

    def make_native_binding(
        self, connection: int, seat: Seat, up_key: bytes, down_key: bytes, player_nonce: bytes, path_key: bytes
    ) -> NativeBinding:
        kept = self._kept.get(seat) or self._keep(seat)
        return XdpNativeBinding(self, kept.slot, connection, seat, up_key, down_key, player_nonce, path_key)

    def skip_sent(self, binding: NativeBinding, sent: int) -> None:
        self.ask(_SKIP_SENT, self._kept[binding.seat].slot, sent)

    def take(  # type: ignore[override]  # the base class accepts anything that has quotas
        self, seat: Seat, session: Session, size: int, now: float, copies: int = 1
    ) -> bool:
        return bool(self.ask(_TAKE, self._kept[seat].slot, copies << 32 | size))

    # -- the state that the program keeps

    def read(self, slot: int) -> SeatState:
        return SeatState(self.read_value(slot))

    def read_value(self, slot: int) -> bytes:
        return self._maps["seats"].get(_U32.pack(slot)) or bytes(SEAT.size)

    def write_value(self, slot: int, value: bytes) -> None:
        """Only while no packets are directed to the program, which changes values too."""
        self._maps["seats"].put(_U32.pack(slot), value)

    def ask(self, what: int, slot: int, value: int = 0, packet_ns: int = 0, byte_ns: int = 0) -> int:
        """Send a request to the gate. Returns the value in its answer."""
        return self._request(REQUEST.pack(what, slot, value, packet_ns, byte_ns) + _ABSENT_RULE)

    def _set_rule(self, seat: Seat, kept: _Kept, rule: bytes) -> None:
        anew = _ANEW_QUOTA if kept.rule is _ABSENT_RULE else 0
        native = native_binding(seat)
        connection = native.id if native else None
        if kept.rule[DIALECT_AT] == _ABSENT or kept.begun != connection:
            anew |= _ANEW_CONNECTION
            kept.begun, kept.received = connection, 0
        self._request(REQUEST.pack(_SET_SEAT, kept.slot, anew, 0, 0) + rule)
        kept.rule = rule

    def _set_session(self, session: Session, anew: int) -> None:
        slot, limits = self._session_slots[session], session.limits
        self.ask(_SET_SESSION, slot, anew, _packet_ns(limits.packets), _byte_ns(limits.bytes))

    def _request(self, request: bytes) -> int:
        while True:  # the program holds the lock for nanoseconds at a time
            result, answer = self._gate.run(request)
            if result != _BUSY:
                break
        if result != _DONE:
            raise RuntimeError("the gate was asked for a seat or session that it has no room for")
        value: int = REQUEST.unpack_from(answer)[2]
        return value

    def _count(self, which: int) -> int:
        value = self._maps["counters"].get(_U32.pack(which))
        return sum(count for (count,) in _U64.iter_unpack(value or b""))

    # -- the seat table in the format of the program

    def _keep(self, seat: Seat) -> _Kept:
        kept = self._kept[seat] = _Kept(self._free_slots.pop())
        session = seat.session
        if session not in self._session_slots:
            self._session_slots[session] = self._free_session_slots.pop()
            self._set_session(session, _ANEW_QUOTA)
        self._maps["names"].put(self._name(session, _IS_NUMBER | seat.number), _U32.pack(kept.slot))
        if seat.number == 0:
            for other in session.seats.values():
                if other is not seat:
                    self.seat_changed(other)  # because its rule names the host
        return kept

    def _rule(self, seat: Seat) -> bytes:
        session = seat.session
        if seat.addr is None or seat.revoked or seat.binding.dialect not in session.dialects:
            return self._absent(session)
        ip, port, local = endpoints(seat.addr)
        host = session.seats.get(0)
        host_kept = self._kept.get(host) if host is not None else None
        native = native_binding(seat)
        return RULE.pack(
            ip,
            local,
            port,
            self._our_ports[seat.port],
            _NATIVE if native else _EDGEGAP,
            seat.number,
            session.mesh,
            session.admits_edgegap,
            self._session_slots[session],
            host_kept.slot if host_kept is not None else 0,
            seat.edgegap.connection_id if seat.edgegap.prefix else 0,
            native.id if native else 0,
            native.receive_key if native else bytes(16),
            native.send_key if native else bytes(16),
            _packet_ns(seat.limits.packets),
            _byte_ns(seat.limits.bytes),
        )

    def _absent(self, session: Session) -> bytes:
        nothing = bytes(16)
        slot = self._session_slots[session]
        return RULE.pack(nothing, nothing, b"", b"", _ABSENT, 0, 0, 0, slot, 0, 0, 0, nothing, nothing, 0, 0)

    def _index(self, seat: Seat, kept: _Kept) -> None:
        """Update the indexes by which packets find the seat."""
        is_bound = seat.addr is not None
        native = native_binding(seat)
        pair = seat.edgegap.pair if is_bound and native is None else None
        connection = native.id if is_bound and native and not native.is_resumed else None
        name = seat.edgegap.connection_id
        slot = _U32.pack(kept.slot)
        if pair != kept.pair:
            if kept.pair is not None:
                self._maps["pairs"].remove(_U64.pack(kept.pair))
            if pair is not None:
                self._maps["pairs"].put(_U64.pack(pair), slot)
        if connection != kept.connection:
            if kept.connection is not None:
                self._maps["connections"].put(_U32.pack(kept.connection & INDEX_MASK), bytes(4))
            if connection is not None:
                self._maps["connections"].put(_U32.pack(connection & INDEX_MASK), slot)
        if name != kept.name:
            if kept.name:
                self._maps["names"].remove(self._name(seat.session, kept.name))
            if name:
                self._maps["names"].put(self._name(seat.session, name), slot)
        kept.pair, kept.connection, kept.name = pair, connection, name

    def _unindex(self, seat: Seat, kept: _Kept) -> None:
        if kept.pair is not None:
            self._maps["pairs"].remove(_U64.pack(kept.pair))
        if kept.connection is not None:
            self._maps["connections"].put(_U32.pack(kept.connection & INDEX_MASK), bytes(4))
        for name in (kept.name, _IS_NUMBER | seat.number):
            self._maps["names"].remove(self._name(seat.session, name))

    def _name(self, session: Session, name: int) -> bytes:
        return _NAME.pack(self._session_slots[session], name)


def native_binding(seat: Seat) -> NativeBinding | None:
    """The seat's native binding; None: the seat uses the edgegap dialect."""
    return seat.binding if isinstance(seat.binding, NativeBinding) else None


def endpoints(addr: Address) -> tuple[bytes, bytes, bytes]:
    """(the player's IP, its port in network order, our IP that it sends to) of an address. Each IP has 16 bytes."""
    ip = packed_ip(addr)
    if addr[0] == _AF_INET:
        return ip, addr[2:4], ip[:12] + addr[52:56]
    return ip, addr[2:4], addr[LOCAL_IP]


_AF_INET = 2


def _packet_ns(per_second: int) -> int:
    return _SECOND // per_second if per_second else 0


def _byte_ns(per_second: int) -> int:
    """The cost of one byte in units of 2^-20 ns."""
    return (_SECOND << 20) // per_second if per_second else 0

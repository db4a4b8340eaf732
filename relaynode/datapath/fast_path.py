"""The fast path of Python: DATA of known seats is rewritten in the buffer that it was received in, and sent from there.

For packets about which nothing is left to decide, it repeats what the dialects and the forwarder would do, as the XDP
program does (xdp/relay.bpf.c). All other packets go to the core in the order of their arrival: other types, unknown or
moved senders, fan-out, absent peers, and packets between two dialects. It is one long loop that avoids calls, objects
and copies, because they are what a packet costs in Python.
"""

import struct
from collections.abc import Callable
from ctypes import c_size_t
from typing import Any

from causeway_client.protocol.packets import (
    EVERYONE,
    HEADER,
    MAX_DATAGRAM,
    MAX_DATAGRAM_BESIDE_EDGEGAP,
    OVERHEAD,
    TAG_SIZE,
    PacketType,
)

from ..core.addresses import Address, Outgoing
from ..core.dialects.edgegap_binding import EdgegapBinding
from ..core.dialects.native_binding import NativeBinding
from ..core.forwarding import Forwarder
from ..core.limits import BURST
from .buffers import ReceiveBatch, SendBatch
from .siphash_in_place import siphash24_in_place

Receive = Callable[[bytes, Address, int, float], Outgoing | None]

_NATIVE_DATA = int(PacketType.DATA)
_EDGEGAP_DATA = 2
_HEAD, _HOST_HEAD = 9, 13
_DOWN = bytes((_EDGEGAP_DATA,))
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_MASK = 0xFFFFFFFF
_SIZES = [c_size_t(size) for size in range(MAX_DATAGRAM + 1)]


class FastPath:
    def __init__(self, forwarder: Forwarder, receive: Receive, send_batches: tuple[SendBatch, SendBatch]) -> None:
        """`receive` handles every packet that is not for the fast path. `send_batches`: one for each of our ports."""
        self._forwarder = forwarder
        self._receive = receive
        self._send_batches = send_batches

    def run(self, batch: ReceiveBatch, sizes: list[int], port: int, now: float) -> None:
        """Process the datagrams of these sizes that arrived at `port`; the results are added to the send batches."""
        forwarder, receive, send_batches = self._forwarder, self._receive, self._send_batches
        edgegap_of, native_of = forwarder.table.by_pair.get, forwarder.table.by_connection.get
        counters = forwarder.counters
        payloads, addresses, memory = batch.payloads, batch.addresses, batch.payloads_at
        unpack_header, pack_header = HEADER.unpack_from, HEADER.pack_into
        unpack_u64, pack_u64, pack_u32 = _U64.unpack_from, _U64.pack_into, _U32.pack_into
        siphash, sizes_of, burst = siphash24_in_place, _SIZES, BURST
        count, forwarded, forwarded_bytes = len(sizes), 0, 0
        for (at, where, place), size, pair, kind in zip(
            batch.slots, sizes, batch.first_words(count), batch.ninth_bytes(count), strict=False
        ):
            addr = addresses[where]
            target = native = None
            kind_of_binding: type[EdgegapBinding | NativeBinding] = EdgegapBinding
            # Of a shorter datagram, `pair` and `kind` contain bytes of an earlier one in the same buffer.
            if _HOST_HEAD <= size <= MAX_DATAGRAM:
                edgegap = edgegap_of(pair)
                if edgegap is not None:
                    seat = edgegap.seat
                    if kind == _EDGEGAP_DATA and seat.addr == addr and seat.port == port and seat.binding is edgegap:
                        session = seat.session
                        if seat.number:
                            prefix = edgegap.prefix
                            if prefix:
                                target = session.seats.get(0)
                                start = at + _HEAD - 5
                        else:
                            target = session.by_connection_id.get(_U32.unpack_from(payloads, at + _HEAD)[0])
                            prefix = _DOWN
                            start = at + _HOST_HEAD - 1
                elif pair & 0xFF == _NATIVE_DATA and size >= OVERHEAD:
                    _, connection, low, number = unpack_header(payloads, at)
                    native = native_of(connection)
                    if native is not None:
                        kind_of_binding = NativeBinding
                        seat = native.seat
                        session = seat.session
                        if seat.addr == addr and seat.port == port:
                            if number == EVERYONE and seat.number and not session.mesh:
                                number = 0
                            target = session.seats.get(number)
                            if target is seat or (number and seat.number and not session.mesh):
                                target = None
                if size > MAX_DATAGRAM_BESIDE_EDGEGAP and target is not None and session.admits_edgegap:
                    target = None
            if target is None or (to := target.addr) is None or type(target.binding) is not kind_of_binding:
                outgoing = receive(payloads[at : at + size], addr, port, now)
                if outgoing is not None:
                    send_batches[outgoing[0]].add(outgoing[1], outgoing[2])
                if forwarder.outbox:
                    self._empty_outbox()
                continue

            if native is not None:
                window = native.window
                highest = window.highest
                sequence = low if highest < 0x80000000 else window.complete(low)
                tag_at = at + size - TAG_SIZE
                (received_tag,) = unpack_u64(payloads, tag_at)
                high = sequence >> 32
                pack_u32(payloads, tag_at, high)
                tagged = sizes_of[size - 4]
                if siphash(native.receive_key, place, tagged) ^ received_tag:
                    counters.drops["bad_tag"] += 1
                    continue
                if sequence == highest + 1:
                    window.highest = sequence
                    window.in_order += 1
                elif window.is_new(sequence):
                    window.mark(sequence)
                else:
                    counters.drops["replayed"] += 1
                    continue
                native.received += 1
            elif edgegap is not None:
                edgegap.candidate = None
            seat.last_received = now

            # limits.take, inlined
            quota, common = seat.quota, session.quota
            time = now - session.began
            latest = time + burst
            packets, octets = quota.packets_at, quota.bytes_at
            packets = (packets if packets > time else time) + quota.packet_interval
            octets = (octets if octets > time else time) + size * quota.byte_interval
            all_packets, all_octets = common.packets_at, common.bytes_at
            all_packets = (all_packets if all_packets > time else time) + common.packet_interval
            all_octets = (all_octets if all_octets > time else time) + size * common.byte_interval
            if packets > latest or octets > latest or all_packets > latest or all_octets > latest:
                forwarder.over_limit(seat, now)
                self._empty_outbox()
                continue
            quota.packets_at, quota.bytes_at = packets, octets
            common.packets_at, common.bytes_at = all_packets, all_octets

            out = send_batches[target.port]
            if native is not None:
                down: Any = target.binding  # a NativeBinding, too
                down.sent = sequence = down.sent + 1
                pack_header(payloads, at, _NATIVE_DATA, down.id, sequence & _MASK, seat.number)
                if sequence >> 32 != high:
                    pack_u32(payloads, tag_at, sequence >> 32)
                pack_u64(payloads, tag_at, siphash(down.send_key, place, tagged))
                start = at
            else:
                body = start + len(prefix)
                payloads[start:body] = prefix
                size += at - start
            out.pieces += memory + start, size
            out.names.append(to)
            forwarded += 1
            forwarded_bytes += size
        counters.forwarded_packets += forwarded
        counters.forwarded_bytes += forwarded_bytes

    def _empty_outbox(self) -> None:
        outbox, self._forwarder.outbox = self._forwarder.outbox, []
        for port, data, addr in outbox:
            self._send_batches[port].add(data, addr)

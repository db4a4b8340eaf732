"""DATA of known seats, forwarded where it lies: rewritten in the buffer it came in, and sent from there.

It repeats, for packets about which nothing is left to decide, what the dialects and the exchange would do, as the
XDP program does (xdp/relay.bpf.c), and leaves all else to them, in the order it came: other packets,
unknown or moved senders, fan-out, absent peers, and whatever goes from one dialect to the other. One long loop without
a call, object or copy that can be spared: calls and objects are what a packet costs in Python.
"""

import struct
from collections.abc import Callable
from ctypes import c_size_t

from causeway_client.protocol.packets import EVERYONE, HEADER, MAX_DATAGRAM, OVERHEAD, TAG_SIZE, PacketType

from ..core.addresses import Address, Outgoing
from ..core.forwarding import Exchange
from ..core.limits import BURST
from .buffers import Incoming, Leaving
from .siphash_in_place import siphash24_in_place

Receive = Callable[[bytes, Address, int, float], Outgoing | None]

_NATIVE_DATA = int(PacketType.DATA)
_EDGEGAP_DATA = 2
_HEAD, _HOST_HEAD = 9, 13
_DOWN = bytes((_EDGEGAP_DATA,))
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_MASK = 0xFFFFFFFF
_SIZES = [c_size_t(size) for size in range(MAX_DATAGRAM + 1)]


class FastLane:
    def __init__(self, exchange: Exchange, receive: Receive, leaving: tuple[Leaving, Leaving]) -> None:
        """`receive`: what has everything judged that does not belong here. `leaving`: by which of our ports."""
        self._exchange = exchange
        self._receive = receive
        self._leaving = leaving

    def run(self, batch: Incoming, sizes: list[int], port: int, now: float) -> None:
        """Have the datagrams of these sizes judged that came to `port`, and what comes of them put into `leaving`."""
        exchange, receive, leaving = self._exchange, self._receive, self._leaving
        seat_of_pair, link_of = exchange.table.by_pair.get, exchange.table.by_connection.get
        counters = exchange.counters
        payloads, addresses, memory = batch.payloads, batch.addresses, batch.payloads_at
        unpack_header, pack_header = HEADER.unpack_from, HEADER.pack_into
        unpack_u64, pack_u64, pack_u32 = _U64.unpack_from, _U64.pack_into, _U32.pack_into
        siphash, sizes_of, burst = siphash24_in_place, _SIZES, BURST
        count, forwarded, forwarded_bytes = len(sizes), 0, 0
        for (at, where, place), size, pair, kind in zip(
            batch.slots, sizes, batch.first_words(count), batch.ninth_bytes(count), strict=False
        ):
            addr = addresses[where]
            target = link = None
            # Shorter ones are judged by what came before them in the buffer; nothing of that may be believed.
            if _HOST_HEAD <= size <= MAX_DATAGRAM:
                known = seat_of_pair(pair)
                if known is not None:
                    seat = known
                    if kind == _EDGEGAP_DATA and seat.addr == addr and seat.port == port and seat.link is None:
                        session = seat.session
                        if seat.number:
                            prefix = seat.prefix
                            if prefix:
                                target = session.seats.get(0)
                                start = at + _HEAD - 5
                        else:
                            target = session.by_connection_id.get(_U32.unpack_from(payloads, at + _HEAD)[0])
                            prefix = _DOWN
                            start = at + _HOST_HEAD - 1
                elif pair & 0xFF == _NATIVE_DATA and size >= OVERHEAD:
                    _, connection, low, number = unpack_header(payloads, at)
                    link = link_of(connection)
                    if link is not None:
                        seat = link.seat
                        session = seat.session
                        if seat.addr == addr and seat.port == port:
                            if number == EVERYONE and seat.number and not session.mesh:
                                number = 0
                            target = session.seats.get(number)
                            if target is seat or (number and seat.number and not session.mesh):
                                target = None
            if target is None or (to := target.addr) is None or ((down := target.link) is None) != (link is None):
                outgoing = receive(payloads[at : at + size], addr, port, now)
                if outgoing is not None:
                    leaving[outgoing[0]].add(outgoing[1], outgoing[2])
                if exchange.outbox:
                    self._empty_outbox()
                continue

            if link is not None:
                window = link.window
                highest = window.highest
                sequence = low if highest < 0x80000000 else window.complete(low)
                tag_at = at + size - TAG_SIZE
                (brought,) = unpack_u64(payloads, tag_at)
                high = sequence >> 32
                pack_u32(payloads, tag_at, high)
                tagged = sizes_of[size - 4]
                if siphash(link.up_pointer, place, tagged) ^ brought:
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
                link.received += 1
            else:
                seat.candidate = None
            seat.last_heard = now

            # limits.take, written out
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
                exchange.over_limit(seat, now)
                self._empty_outbox()
                continue
            quota.packets_at, quota.bytes_at = packets, octets
            common.packets_at, common.bytes_at = all_packets, all_octets

            out = leaving[target.port]
            if down is not None:
                down.sent = sequence = down.sent + 1
                pack_header(payloads, at, _NATIVE_DATA, down.id, sequence & _MASK, seat.number)
                if sequence >> 32 != high:
                    pack_u32(payloads, tag_at, sequence >> 32)
                pack_u64(payloads, tag_at, siphash(down.down_pointer, place, tagged))
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
        outbox, self._exchange.outbox = self._exchange.outbox, []
        for port, data, addr in outbox:
            self._leaving[port].add(data, addr)

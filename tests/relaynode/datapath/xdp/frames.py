"""Ethernet frames with one UDP datagram, written and read by hand."""

import functools
import ipaddress
import struct
from dataclasses import dataclass

OUR_MAC, THEIR_MAC = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")


@dataclass(frozen=True, slots=True)
class Endpoint:
    ip: str
    port: int

    @property
    def packed(self) -> bytes:
        return _packed(self.ip)


@functools.lru_cache(maxsize=4096)
def _packed(ip: str) -> bytes:
    return ipaddress.ip_address(ip).packed


@functools.lru_cache(maxsize=4096)
def _written(packed: bytes) -> str:
    return str(ipaddress.ip_address(packed))


@dataclass(frozen=True, slots=True)
class Datagram:
    source: Endpoint
    destination: Endpoint
    payload: bytes


def checksum(data: bytes) -> int:
    """RFC 1071."""
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def udp_checksum(source: bytes, destination: bytes, udp: bytes) -> int:
    pseudo = source + destination + struct.pack(">IxxxB" if len(source) == 16 else ">xBH", *_length(source, udp))
    return checksum(pseudo + udp) or 0xFFFF


def _length(source: bytes, udp: bytes) -> tuple[int, int]:
    return (len(udp), 17) if len(source) == 16 else (17, len(udp))


def frame(datagram: Datagram, with_checksum: bool = True) -> bytes:
    source, destination = datagram.source.packed, datagram.destination.packed
    length = 8 + len(datagram.payload)
    udp = struct.pack(">HHHH", datagram.source.port, datagram.destination.port, length, 0) + datagram.payload
    if with_checksum or len(source) == 16:
        udp = udp[:6] + udp_checksum(source, destination, udp).to_bytes(2, "big") + udp[8:]
    return ethernet(ip_header(source, destination, length) + udp, 4 if len(source) == 4 else 6)


def ip_header(source: bytes, destination: bytes, length: int) -> bytes:
    if len(source) == 16:
        return struct.pack(">IHBB", 0x60000000, length, 17, 64) + source + destination
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + length, 0x1234, 0x4000, 64, 17, 0) + source + destination
    return header[:10] + checksum(header).to_bytes(2, "big") + header[12:]


def ethernet(packet: bytes, version: int) -> bytes:
    kind = b"\x08\x00" if version == 4 else b"\x86\xdd"
    return (OUR_MAC + THEIR_MAC + kind + packet).ljust(60, b"\0")


def read_frame(data: bytes) -> Datagram:
    """Asserts that a receiver's stack would take it: right lengths, right checksums."""
    version = data[14] >> 4
    assert data[12:14] == (b"\x08\x00" if version == 4 else b"\x86\xdd")
    packet = data[14:]
    if version == 4:
        assert packet[0] == 0x45
        assert checksum(packet[:20]) == 0, "IPv4 header checksum"
        source, destination, udp = packet[12:16], packet[16:20], packet[20 : struct.unpack_from(">H", packet, 2)[0]]
        assert packet[6:8] == b"\x40\x00", "not a fragment"
    else:
        source, destination, udp = packet[8:24], packet[24:40], packet[40 : 40 + struct.unpack_from(">H", packet, 4)[0]]
        assert packet[6] == 17
    source_port, destination_port, length, given = struct.unpack_from(">HHHH", udp)
    assert length == len(udp), "UDP length"
    assert len(data) == 14 + (20 if version == 4 else 40) + length, "nothing behind the datagram"
    assert given or version == 4
    if given:
        assert udp_checksum(source, destination, udp[:6] + bytes(2) + udp[8:]) == given, "UDP checksum"
    return Datagram(
        Endpoint(_written(source), source_port),
        Endpoint(_written(destination), destination_port),
        udp[8:],
    )

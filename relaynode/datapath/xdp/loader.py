"""Reads relay.bpf.o, creates its maps and loads its programs into the kernel: the part of libbpf that we need.

The file format is ELF (elf(5)). Each program is a section of its own. A relocation names the map whose descriptor
belongs in an instruction. The section "maps" contains one struct map for each map.
"""

import os
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from . import bpf

OBJECT = Path(__file__).with_name("relay.bpf.o")

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQ")
_MAP = struct.Struct("<IIII")
_MAP_DESCRIPTOR = 1  # BPF_PSEUDO_MAP_FD, in the source register of a 64-bit load
_SYMBOLS, _RELOCATIONS = 2, 9
_PREFIX = "xdp/"


class _Section(NamedTuple):
    name: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry_size: int


@dataclass(frozen=True, slots=True)
class MapShape:
    kind: int
    key_size: int
    value_size: int
    entries: int  # 0: one for each seat, or two for each seat in a hash map


class ObjectFile:
    """The programs and maps of an eBPF object, by name."""

    def __init__(self, data: bytes) -> None:
        header = _HEADER.unpack_from(data)
        at, size, count, names = header[6], header[11], header[12], header[13]
        sections = [_Section(*_SECTION.unpack_from(data, at + index * size)) for index in range(count)]
        strings = _bytes_of(data, sections[names])
        titles = [_string(strings, section.name) for section in sections]
        symbols = next(section for section in sections if section.kind == _SYMBOLS)
        symbol_names = _bytes_of(data, sections[symbols.link])
        table = list(_SYMBOL.iter_unpack(_bytes_of(data, symbols)))
        self._symbols = [_string(symbol_names, symbol[0]) for symbol in table]
        maps_at = titles.index("maps")
        shapes = _bytes_of(data, sections[maps_at])
        self.maps = {
            name: MapShape(*_MAP.unpack_from(shapes, symbol[4]))
            for name, symbol in zip(self._symbols, table, strict=True)
            if symbol[3] == maps_at and name
        }
        self._code = {
            title.removeprefix(_PREFIX): _bytes_of(data, section)
            for title, section in zip(titles, sections, strict=True)
            if title.startswith(_PREFIX)
        }
        self._relocations = {
            titles[section.info].removeprefix(_PREFIX): list(_RELOCATION.iter_unpack(_bytes_of(data, section)))
            for section in sections
            if section.kind == _RELOCATIONS
        }

    def maps_of(self, program: str) -> set[str]:
        return {self._symbols[info >> 32] for _, info in self._relocations.get(program, [])}

    def linked(self, program: str, descriptors: dict[str, int]) -> bytes:
        """The instructions of the program, with the descriptors of the maps filled in."""
        code = bytearray(self._code[program])
        for offset, info in self._relocations.get(program, []):
            code[offset + 1] |= _MAP_DESCRIPTOR << 4
            struct.pack_into("<i", code, offset + 4, descriptors[self._symbols[info >> 32]])
        return bytes(code)


def read_object() -> ObjectFile:
    return ObjectFile(OBJECT.read_bytes())


def make_maps(file: ObjectFile, names: Iterable[str], seats: int) -> dict[str, bpf.Map]:
    """Create maps for at most `seats` seats. Raises BpfError."""
    made = {}
    for name in sorted(names):
        shape = file.maps[name]
        entries = shape.entries or (2 * seats if shape.kind == bpf.HASH else seats)
        made[name] = bpf.make_map(shape.kind, shape.key_size, shape.value_size, entries, name)
    return made


def load(file: ObjectFile, program: str, maps: dict[str, bpf.Map]) -> int:
    """Load the program into the kernel. Returns its descriptor. Raises BpfError."""
    return bpf.load_program(file.linked(program, {name: it.fd for name, it in maps.items()}), program)


class SeatPrograms:
    """The program `relay`, which forwards packets, and `gate`, which changes its maps. Raises BpfError."""

    SPARE = 2048  # additional entries: index 0 means none, and a freed connection index is not reused at once

    def __init__(self, max_seats: int) -> None:
        file = read_object()
        self.entries = max_seats + self.SPARE
        self.maps = make_maps(file, file.maps_of("relay") | file.maps_of("gate"), self.entries)
        self.relay = load(file, "relay", self.maps)
        self.gate = load(file, "gate", self.maps)

    def close(self) -> None:
        for descriptor in (self.relay, self.gate, *(it.fd for it in self.maps.values())):
            os.close(descriptor)


class PortTable:
    """The program that receives the packets to each UDP port. The processes of a node share it by its descriptor."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map = bpf.Map(fd, key_size=4, value_size=4)

    def put(self, port: int, program: int) -> None:
        self._map.put(port.to_bytes(4, "little"), program.to_bytes(4, "little"))

    def remove(self, port: int) -> None:
        self._map.remove(port.to_bytes(4, "little"))


@dataclass(frozen=True, slots=True)
class Front:
    """The program at the interfaces, which passes packets to workers' programs by port. It ends with the process."""

    ports: PortTable
    links: tuple[int, ...]
    is_native: bool

    def close(self) -> None:
        for link in self.links:
            os.close(link)
        os.close(self.ports.fd)


def attach_front(interfaces: Iterable[int]) -> Front:
    """Attach natively where the driver supports it, otherwise in the slower generic mode. Raises BpfError."""
    interfaces = list(interfaces)
    file = read_object()
    maps = make_maps(file, file.maps_of("front"), 1)
    for interface in interfaces:
        maps["macs"].put(interface.to_bytes(4, "little"), mac_address(interface).ljust(8, b"\0"))
    program = load(file, "front", maps)
    links: list[int] = []
    is_native = True
    try:
        for interface in interfaces:
            try:
                links.append(bpf.attach(program, interface, bpf.NATIVE))
            except bpf.BpfError:
                links.append(bpf.attach(program, interface, bpf.GENERIC))
                is_native = False
    except bpf.BpfError:
        for link in links:
            os.close(link)
        raise
    finally:
        os.close(program)
        os.close(maps["macs"].fd)
    return Front(PortTable(maps["ports"].fd), tuple(links), is_native)


def mac_address(interface: int) -> bytes:
    """The 6 bytes; zeros, which match no frame, where the system does not report it. If the address changes later,
    frames are passed to the sockets until the node is restarted."""
    try:
        text = Path("/sys/class/net", socket.if_indextoname(interface), "address").read_text().strip()
        return bytes.fromhex(text.replace(":", ""))[:6]
    except (OSError, ValueError):
        return bytes(6)


def _bytes_of(data: bytes, section: _Section) -> bytes:
    return data[section.offset : section.offset + section.size]


def _string(table: bytes, at: int) -> str:
    return table[at : table.index(0, at)].decode()

"""Writes tiny databases in MaxMind's format (MaxMind DB File Format Specification, 2.0): IPv4, 24-bit records."""

import ipaddress
import struct
from pathlib import Path
from typing import Any

STRING, DOUBLE, UINT16, UINT32, MAP, UINT64, ARRAY = 2, 3, 5, 6, 7, 9, 11


def write(path: Path, networks: dict[str, Any]) -> None:
    nodes: list[list[int | None]] = [[None, None]]
    data = b""
    leaves: list[tuple[int, int, int]] = []  # node, side, offset into data
    for network, record in networks.items():
        leaves.append((*_leaf(nodes, ipaddress.IPv4Network(network)), len(data)))
        data += _encode(record)
    count = len(nodes)
    for node, side, offset in leaves:
        nodes[node][side] = count + 16 + offset
    tree = b"".join((count if value is None else value).to_bytes(3, "big") for node in nodes for value in node)
    metadata = {
        "binary_format_major_version": (UINT16, 2),
        "binary_format_minor_version": (UINT16, 0),
        "build_epoch": (UINT64, 1_700_000_000),
        "database_type": "Test-City",
        "description": {"en": "test"},
        "ip_version": (UINT16, 4),
        "languages": ["en"],
        "node_count": (UINT32, count),
        "record_size": (UINT16, 24),
    }
    path.write_bytes(tree + bytes(16) + data + b"\xab\xcd\xefMaxMind.com" + _encode(metadata))


def _leaf(nodes: list[list[int | None]], network: ipaddress.IPv4Network) -> tuple[int, int]:
    bits = [int(network.network_address) >> (31 - place) & 1 for place in range(network.prefixlen)]
    node = 0
    for bit in bits[:-1]:
        following = nodes[node][bit]
        if following is None:
            following = nodes[node][bit] = len(nodes)
            nodes.append([None, None])
        node = following
    return node, bits[-1]


def _encode(value: Any) -> bytes:
    if isinstance(value, dict):
        return _control(MAP, len(value)) + b"".join(_encode(key) + _encode(item) for key, item in value.items())
    if isinstance(value, list):
        return _control(ARRAY, len(value)) + b"".join(map(_encode, value))
    if isinstance(value, str):
        return _control(STRING, len(value.encode())) + value.encode()
    if isinstance(value, float):
        return _control(DOUBLE, 8) + struct.pack(">d", value)
    kind, number = value if isinstance(value, tuple) else (UINT32, value)
    content = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return _control(kind, len(content)) + content


def _control(kind: int, size: int) -> bytes:
    assert size < 29
    return bytes([kind << 5 | size]) if kind < 8 else bytes([size, kind - 7])

"""The structs of relay.bpf.c that Python packs and unpacks. A test compares their offsets with the C code."""

import struct
from collections.abc import Mapping
from itertools import accumulate


def offsets(fields: Mapping[str, str]) -> dict[str, int]:
    """The offset of each field of a struct without padding."""
    ends = accumulate(struct.calcsize("<" + kind) for kind in fields.values())
    return dict(zip(fields, (0, *ends), strict=False))


RULE_FIELDS = {
    "addr": "16s",
    "local": "16s",
    "port": "2s",
    "our_port": "2s",
    "dialect": "B",
    "number": "B",
    "mesh": "B",
    "admits_edgegap": "B",
    "session": "I",
    "host": "I",
    "connection_id": "I",
    "connection": "I",
    "up_key": "16s",
    "down_key": "16s",
    "packet_ns": "Q",
    "byte_ns": "Q",
}
RULE = struct.Struct("<" + "".join(RULE_FIELDS.values()))
DIALECT_AT = offsets(RULE_FIELDS)["dialect"]
SEAT_FIELDS = {
    "rule": f"{RULE.size}x",
    "packets_at": "Q",
    "bytes_at": "Q",
    "last_received": "Q",
    "received": "Q",
    "sent": "Q",
    "highest": "Q",
    "over_limit_reported_at": "Q",
}
SEAT = struct.Struct("<" + "".join(SEAT_FIELDS.values()))
REQUEST_FIELDS = {"what": "I", "seat": "I", "value": "Q", "packet_ns": "Q", "byte_ns": "Q"}
REQUEST = struct.Struct("<" + "".join(REQUEST_FIELDS.values()))

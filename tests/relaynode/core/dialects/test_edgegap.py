"""The wire of the edgegap dialect, by its vectors. Its rules: tests/relaynode/core/test_edgegap_acceptance.py."""

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from relaynode.core.grants import read_grant
from relaynode.core.relay import CLIENT_PORT, SERVER_PORT, Relay, RelayConfig
from tests.relaynode.players import NOW, grant_json

VECTORS = json.loads((Path(__file__).parents[4] / "transports/protocol/vectors" / "edgegap.json").read_text())
PACKETS = {vector["name"]: vector for vector in VECTORS["packets"]}
ADDRESSES = {"host": ("198.51.100.1", 1), "client": ("198.51.100.2", 2)}
PORTS = {"host": SERVER_PORT, "client": CLIENT_PORT}


def read(vector: dict[str, Any]) -> dict[str, Any]:
    """By the table of the spec, section 1.1, alone."""
    data, found = bytes.fromhex(vector["hex"]), {}
    if vector["direction"] == "up":
        found["user_token"], found["session_token"], found["type"] = struct.unpack_from("<IIB", data)
        rest = data[9:]
    else:
        found["type"], rest = data[0], data[1:]
    if found["type"] == 1:
        if vector["direction"] == "down":
            (found["state"],) = rest
        return found
    if vector["role"] == "host":
        found["connection_id"] = int.from_bytes(rest[:4], "little")
        rest = rest[4:]
    found["payload"] = rest.hex()
    return found


@pytest.mark.parametrize("vector", VECTORS["packets"], ids=lambda vector: vector["name"])
def test_the_spec_reads_it(vector: dict[str, Any]) -> None:
    assert read(vector) == vector["fields"]


def test_the_relay_answers_as_in_the_vectors() -> None:
    connection_id = PACKETS["host data"]["fields"]["connection_id"]
    relay = Relay(
        worker=0,
        config=RelayConfig(),
        random=lambda size: struct.pack("<I", connection_id) if size == 4 else os.urandom(size),
    )
    data = grant_json(seats=2, token=PACKETS["host ping"]["fields"]["session_token"])
    data["seats"][0]["token"] = PACKETS["host ping"]["fields"]["user_token"]
    data["seats"][1]["token"] = PACKETS["client ping"]["fields"]["user_token"]
    relay.apply_grant(read_grant(data), NOW)
    for step in VECTORS["exchange"]:
        received = PACKETS[step["receives"]]
        role = received["role"]
        outgoing = relay.receive_datagram(bytes.fromhex(received["hex"]), ADDRESSES[role], PORTS[role], NOW)
        sent = bytes.fromhex(PACKETS[step["sends"]]["hex"])
        assert outgoing == (PORTS[step["to"]], sent, ADDRESSES[step["to"]])

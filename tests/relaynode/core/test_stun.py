"""STUN Binding: by the RFC's own vectors, and by aioice as the other end."""

import json
import struct
import zlib
from pathlib import Path

import pytest
from aioice import stun as oracle
from hypothesis import given
from hypothesis import strategies as st

from causeway_client.protocol.packets import STUN_COOKIE
from relaynode.core import stun
from relaynode.core.relay import CLIENT_PORT, SERVER_PORT, RelayConfig
from tests.relaynode.players import NOW, drops, relay_with

VECTORS = json.loads((Path(__file__).parents[3] / "transports/protocol/vectors" / "stun.json").read_text())
ADDR = ("192.0.2.1", 32853)


def request(**attributes: object) -> oracle.Message:
    message = oracle.Message(oracle.Method.BINDING, oracle.Class.REQUEST)
    for name, value in attributes.items():
        message.attributes[name.replace("_", "-")] = value
    return message


def parsed(data: bytes | None) -> oracle.Message:
    assert data is not None
    return oracle.parse_message(data)


@pytest.mark.parametrize("vector", VECTORS["answers"], ids=lambda vector: vector["name"])
def test_vectors(vector: dict[str, str]) -> None:
    answer = stun.answer(bytes.fromhex(vector["request"]), (vector["ip"], int(vector["port"])))
    assert answer == (bytes.fromhex(vector["answer"]) if vector["answer"] else None)


@pytest.mark.parametrize("vector", VECTORS["rfc5769"], ids=lambda vector: vector["name"])
def test_rfc_5769_addresses(vector: dict[str, str]) -> None:
    """The XOR-MAPPED-ADDRESS of the RFC's sample responses, and its sample request's fingerprint."""
    response = bytes.fromhex(vector["response"])
    bare = struct.pack(">HH4s12s", 1, 0, STUN_COOKIE, response[8:20])
    answer = stun.answer(bare, (vector["ip"], int(vector["port"])))
    assert answer is not None
    assert answer[20:].hex() in response.hex()


@pytest.mark.parametrize(
    "addr", [ADDR, ("::ffff:192.0.2.1", 32853, 0, 0), ("2001:db8::9", 1, 0, 0), ("1.2.3.4", 65535)]
)
def test_aioice_reads_its_address(addr: tuple[str, int]) -> None:
    message = request()
    answer = parsed(stun.answer(bytes(message), addr))
    assert answer.transaction_id == message.transaction_id
    assert (answer.message_method, answer.message_class) == (oracle.Method.BINDING, oracle.Class.RESPONSE)
    ip, port = answer.attributes["XOR-MAPPED-ADDRESS"]
    assert (ip, port) == (addr[0].removeprefix("::ffff:"), addr[1])
    assert "FINGERPRINT" not in answer.attributes


def test_a_fingerprint_is_answered_with_one() -> None:
    message = request(SOFTWARE="a game")
    message.add_fingerprint()
    assert "FINGERPRINT" in parsed(stun.answer(bytes(message), ADDR)).attributes


def test_a_wrong_fingerprint_is_no_stun() -> None:
    message = request()
    message.add_fingerprint()
    data = bytearray(bytes(message))
    data[-1] ^= 1
    assert stun.answer(bytes(data), ADDR) is None


def test_credentials_are_of_no_consequence() -> None:
    message = request(USERNAME="someone")
    message.add_message_integrity(b"key")
    assert "XOR-MAPPED-ADDRESS" in parsed(stun.answer(bytes(message), ADDR)).attributes


def test_attributes_that_must_be_understood_are_420_and_named() -> None:
    message = request(USERNAME="long enough for the answer to fit", PRIORITY=5, ICE_CONTROLLING=7)
    data = bytes(message)
    answer = stun.answer(data, ADDR)
    assert answer is not None
    assert len(answer) <= len(data)
    assert parsed(answer).attributes["ERROR-CODE"] == (420, "")
    assert answer[28:36] == struct.pack(">HHH2x", 0x000A, 2, 0x0024)


def test_an_error_longer_than_its_request_is_not_sent() -> None:
    assert stun.answer(bytes(request(PRIORITY=5)), ADDR) is None


def header(kind: int, length: int) -> bytes:
    return struct.pack(">HH4s12s", kind, length, STUN_COOKIE, bytes(12))


@pytest.mark.parametrize(
    "data",
    [
        header(0x0011, 0),  # an indication
        header(0x0101, 0),  # a response
        header(0x0003, 0),  # Allocate
        header(0x0001, 4),  # longer than it is
        header(0x0001, 0) + bytes(4),
        header(0x0001, 3) + bytes(3),
        header(0x0001, 4) + struct.pack(">HH", 0x8022, 1),  # an attribute beyond the end
        header(0x0001, 8) + struct.pack(">HHI", 0x8022, 0xFFFF, 0),
    ],
)
def test_anything_else_is_not_answered(data: bytes) -> None:
    assert stun.looks_like_stun(data)
    assert stun.answer(data, ADDR) is None


@given(st.binary(max_size=200), st.sampled_from([ADDR, ("2001:db8::1", 5, 0, 0)]))
def test_any_bytes_after_the_header_are_answered_or_not(body: bytes, addr: tuple[str, int]) -> None:
    answer = stun.answer(header(0x0001, len(body)) + body, addr)
    if answer is not None:
        assert parsed(answer).message_class in (oracle.Class.RESPONSE, oracle.Class.ERROR)
        assert len(answer) <= len(body) + 20 + 32


def test_both_ports_answer_and_a_source_is_limited() -> None:
    relay, limit = relay_with(), RelayConfig().stun_per_source
    data = bytes(request())
    assert {relay.receive_datagram(data, ADDR, port, NOW)[0] for port in (SERVER_PORT, CLIENT_PORT)} == {0, 1}  # type: ignore[index]
    for _ in range(limit):
        relay.receive_datagram(data, ADDR, CLIENT_PORT, NOW)
    assert drops(relay) == {"source_rate_limited": 2}
    assert relay.receive_datagram(data, ("192.0.2.2", 1), CLIENT_PORT, NOW) is not None


def test_the_crc_is_the_rfcs() -> None:
    """RFC 8489, 14.7: CRC-32 of ITU V.42, XORed with "STUN" in ASCII."""
    message = request()
    message.add_fingerprint()
    data = bytes(message)
    assert int.from_bytes(data[-4:], "big") == zlib.crc32(data[:-8]) ^ int.from_bytes(b"STUN", "big")

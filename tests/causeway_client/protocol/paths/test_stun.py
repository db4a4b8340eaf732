"""STUN, client's side: by the vectors, by the node's own answers, and by aioice as the other end."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from aioice import stun as oracle
from hypothesis import given
from hypothesis import strategies as st

from causeway_client.protocol.errors import DecodeError
from causeway_client.protocol.packets import STUN_COOKIE
from causeway_client.protocol.paths.nat import Observation
from causeway_client.protocol.paths.stun import (
    EXPECTED_WITHIN,
    REPEATS,
    StunClient,
    decode_response,
    encode_request,
    is_stun,
)
from relaynode.core import stun as node

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[4] / "transports/protocol/vectors" / "stun.json").read_text()
)
RESPONSES = [vector for vector in VECTORS["rfc5769"] if "response" in vector]
TRANSACTION = bytes(range(12))
SERVERS = [("198.51.100.1", 31000), ("198.51.100.2", 31000)]
FIRST = Observation("198.51.100.1", 31001, "203.0.113.9", 5000)


def answer(request: bytes, place: tuple[str, int] = ("203.0.113.9", 5001)) -> bytes:
    made = node.answer(request, place)
    assert made is not None
    return made


@pytest.mark.parametrize("vector", RESPONSES, ids=lambda vector: vector["name"])
def test_the_sample_responses_of_rfc_5769(vector: dict[str, Any]) -> None:
    """They have further attributes, the address of each is in section 2.2 or 2.3."""
    transaction, ip, port = decode_response(bytes.fromhex(vector["response"]))
    assert transaction.hex() == "b7e7a701bc34d686fa87dfae"
    assert (ip, port) in (("192.0.2.1", 32853), ("2001:db8:1234:5678:11:2233:4455:6677", 32853))


@pytest.mark.parametrize("vector", VECTORS["answers"], ids=lambda vector: vector["name"])
def test_what_a_node_answers_by_the_vectors(vector: dict[str, Any]) -> None:
    made = bytes.fromhex(vector["answer"])
    if made[:2] != b"\1\1":
        with pytest.raises(DecodeError, match="malformed"):
            decode_response(made)
        return
    transaction, ip, port = decode_response(made)
    assert transaction == made[8:20]
    assert (ip, port) == (vector["ip"].removeprefix("::ffff:"), int(vector["port"]))


def test_the_oracle_reads_our_request() -> None:
    message = oracle.parse_message(encode_request(TRANSACTION))
    assert (message.message_method, message.message_class) == (oracle.Method.BINDING, oracle.Class.REQUEST)
    assert message.transaction_id == TRANSACTION
    assert is_stun(encode_request(TRANSACTION))


@pytest.mark.parametrize("place", [("192.0.2.77", 1), ("2001:db8::9", 65_535)])
def test_we_read_the_oracles_response(place: tuple[str, int]) -> None:
    message = oracle.Message(oracle.Method.BINDING, oracle.Class.RESPONSE, TRANSACTION)
    message.attributes["SOFTWARE"] = "five5"  # of a length that is padded
    message.attributes["XOR-MAPPED-ADDRESS"] = place
    assert decode_response(bytes(message)) == (TRANSACTION, *place)


GOOD = answer(encode_request(TRANSACTION))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        GOOD[:19],
        GOOD[:20],
        GOOD[:-1],
        GOOD + b"\0\0\0\0",
        b"\1\1\0\0" + STUN_COOKIE + TRANSACTION,
        encode_request(TRANSACTION),
        b"\1\x11" + GOOD[2:],
        GOOD[:4] + b"nope" + GOOD[8:],
        GOOD[:22] + b"\xff\xff" + GOOD[24:],
        GOOD[:22] + b"\0\0" + GOOD[24:],
        GOOD[:25] + b"\2" + GOOD[26:],
        GOOD[:25] + b"\3" + GOOD[26:],
    ],
)
def test_anything_else_is_malformed(data: bytes) -> None:
    with pytest.raises(DecodeError, match="malformed"):
        decode_response(data)


@given(st.binary(max_size=80))
def test_any_bytes_are_an_address_or_malformed(data: bytes) -> None:
    for attributes in (data, b"\0\x20" + len(data).to_bytes(2, "big") + data):
        message = b"\1\1" + len(attributes).to_bytes(2, "big") + STUN_COOKIE + TRANSACTION + attributes
        try:
            transaction, ip, port = decode_response(message)
        except DecodeError as error:
            assert error.reason == "malformed"
        else:
            assert transaction == TRANSACTION and ip and 0 <= port <= 65_535


# -- the client


def client(servers: list[tuple[str, int]] = SERVERS, first: Observation | None = FIRST) -> StunClient:
    return StunClient(first, servers, random.Random(1).randbytes, 10.0)


def test_each_server_is_asked_at_once_and_again_until_it_answers() -> None:
    asked = client()
    sent = []
    while (at := asked.next_timer()) is not None:
        sent += [(round(at - 10.0, 3), address) for _, address in asked.requests_to_send(at)]
    assert sent == [(delay, server) for delay in REPEATS for server in SERVERS]
    assert asked.requests_to_send(100.0) == []


def test_an_answer_ends_the_requests_to_its_server_and_is_observed() -> None:
    asked = client()
    (request, _), (other, _) = asked.requests_to_send(10.0)
    assert request != other
    asked.receive(answer(other))
    assert asked.observations == [FIRST, Observation("198.51.100.2", 31000, "203.0.113.9", 5001)]
    assert [address for _, address in asked.requests_to_send(20.0)] == [SERVERS[0]] * (len(REPEATS) - 1)


def test_an_answer_counts_once_and_only_to_an_open_request() -> None:
    """A source that does not see the requests cannot answer them: the transactions are random."""
    asked = client()
    (request, _), _ = asked.requests_to_send(10.0)
    asked.receive(answer(request))
    for forged in (answer(request), answer(encode_request(bytes(12)))):
        with pytest.raises(DecodeError, match="unknown_nonce"):
            asked.receive(forged)
    assert len(asked.observations) == 2


def test_an_answer_is_expected_for_a_fifth_of_a_second() -> None:
    asked = client(SERVERS[:1])
    ((request, _),) = asked.requests_to_send(10.0)
    until = 10.0 + EXPECTED_WITHIN
    assert asked.expected_until(10.1, or_more=False) == until
    assert asked.expected_until(until, or_more=False) is None
    asked.receive(answer(request))
    assert asked.expected_until(10.1, or_more=False) is None
    assert asked.expected_until(10.1, or_more=True) == until


def test_without_servers_nothing_is_sent_or_expected() -> None:
    asked = client([], None)
    assert (asked.next_timer(), asked.expected_until(10.0, or_more=False), asked.observations) == (None, None, [])

"""RENDEZVOUS (PROTOCOL.md 12.2). The vectors are in ../test_vectors.py, and fuzzed bodies in tests/fuzz."""

import ipaddress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causeway_client.protocol.errors import DecodeError
from causeway_client.protocol.paths.rendezvous import (
    MAX_CANDIDATES,
    Candidate,
    CandidateKind,
    NatClass,
    Rendezvous,
    _tag,
    decode_rendezvous,
    end_of,
    pack_observed,
)

SECRET = bytes(range(16))
SENDER, RECEIVER = 5, 9
MADE = Rendezvous(
    round=3,
    acknowledged=2,
    sequence=112_204_640_000_007,
    nonce=b"sixteen bytes 16",
    nat_class=NatClass.PORT_DEPENDENT,
    port_step=-2,
    candidates=(
        Candidate(CandidateKind.HOST, "192.168.1.20", 50_000),
        Candidate(CandidateKind.PORT_MAPPED, "203.0.113.9", 1),
        Candidate(CandidateKind.HOST, "2001:db8::17", 65_535),
    ),
    certificate=b"c" * 32,
)
OBSERVED = [("203.0.113.9", 40_001), ("2001:db8:1::7", 40_002)]


def read(data: bytes, secret: bytes = SECRET, sender: int = SENDER, receiver: int = RECEIVER) -> object:
    return decode_rendezvous(data, secret, sender, receiver)


def reason(data: bytes) -> str:
    with pytest.raises(DecodeError) as caught:
        read(data)
    return caught.value.reason


def sent(made: Rendezvous = MADE) -> bytes:
    return made.encode(SECRET, SENDER, RECEIVER)


ips = st.ip_addresses().filter(lambda ip: ip.version == 4 or ip.ipv4_mapped is None).map(str)
candidates = st.builds(Candidate, st.sampled_from(CandidateKind), ips, st.integers(1, 65_535))


@given(
    st.builds(
        Rendezvous,
        round=st.integers(0, 65_535),
        acknowledged=st.integers(0, 65_535),
        sequence=st.integers(0, 2**64 - 1),
        nonce=st.binary(min_size=16, max_size=16),
        nat_class=st.sampled_from(NatClass),
        port_step=st.integers(-128, 127),
        candidates=st.lists(candidates, max_size=MAX_CANDIDATES).map(tuple),
        certificate=st.sampled_from((b"", b"c" * 32)),
    ),
    st.lists(st.tuples(ips, st.integers(0, 65_535)), max_size=2),
)
def test_it_is_read_as_it_was_written(made: Rendezvous, observed: list[tuple[str, int]]) -> None:
    body = sent(made)
    assert end_of(body) == len(body)
    assert read(body + pack_observed(observed)) == (made, observed)


def test_every_byte_of_the_sender_is_covered_by_the_tag() -> None:
    body, observed = sent(), pack_observed(OBSERVED)
    for index in range(len(body)):
        changed = bytearray(body + observed)
        changed[index] ^= 0x40
        assert reason(bytes(changed)) in ("bad_tag", "malformed", "unsupported_version"), index


@pytest.mark.parametrize(
    ("secret", "sender", "receiver"),
    [(b"x" * 16, SENDER, RECEIVER), (SECRET, RECEIVER, SENDER), (SECRET, 6, RECEIVER), (SECRET, SENDER, 8)],
)
def test_it_is_for_one_receiver_from_one_sender(secret: bytes, sender: int, receiver: int) -> None:
    with pytest.raises(DecodeError, match="bad_tag"):
        read(sent() + pack_observed(OBSERVED), secret, sender, receiver)


def test_a_node_can_change_the_observed_addresses_only() -> None:
    for observed in ([], OBSERVED[:1], [("192.0.2.66", 53), ("192.0.2.67", 53)]):
        assert read(sent() + pack_observed(observed)) == (MADE, observed)


@pytest.mark.parametrize(
    "added",
    [
        b"",
        b"\3",
        b"\3" + pack_observed(OBSERVED)[1:],
        b"\1",
        b"\1\4",
        b"\1\5" + bytes(6),
        b"\1\4" + bytes(5),
        b"\1\6" + bytes(6),
        b"\0x",
        pack_observed(OBSERVED) + b"x",
        pack_observed(OBSERVED)[:-1],
    ],
)
def test_observed_addresses_of_another_layout_are_malformed(added: bytes) -> None:
    assert reason(sent() + added) == "malformed"


@pytest.mark.parametrize("size", range(41))
def test_less_than_a_head_and_a_tag_is_malformed(size: int) -> None:
    assert reason(sent()[:size]) == "malformed"


def test_a_thirteenth_candidate_is_malformed() -> None:
    many = replace(MADE, candidates=MADE.candidates[:1] * MAX_CANDIDATES)
    assert read(sent(many) + pack_observed([])) == (many, [])
    assert reason(sent(replace(MADE, candidates=MADE.candidates[:1] * 13)) + pack_observed([])) == "malformed"


def test_another_version_is_named_first() -> None:
    assert reason(b"\2" + bytes(100)) == "unsupported_version"


def signed_by_hand(body: bytes) -> bytes:
    """A body of a later client, with a right tag."""
    return body + _tag(SECRET, SENDER, RECEIVER, body) + pack_observed([])


def test_what_a_later_version_may_send_is_ignored() -> None:
    """Unknown kinds of candidates, unknown NAT classes and flags, and candidates without a port."""
    plain = sent(replace(MADE, certificate=b""))[:-8]
    body = bytearray(plain)
    body[1] |= 0b1000_0000
    body[30] = 200
    body[33] = 0xF4  # the kind of the first candidate
    (made, _) = decode_rendezvous(signed_by_hand(bytes(body)), SECRET, SENDER, RECEIVER)
    assert made == replace(MADE, certificate=b"", nat_class=NatClass.UNKNOWN, candidates=MADE.candidates[1:])
    body = bytearray(plain)
    body[38:40] = bytes(2)
    (made, _) = decode_rendezvous(signed_by_hand(bytes(body)), SECRET, SENDER, RECEIVER)
    assert made.candidates == MADE.candidates[1:]


def test_a_scope_is_not_sent() -> None:
    made = replace(MADE, candidates=(Candidate(CandidateKind.HOST, "fe80::1%eth0", 5),))
    (received, _) = decode_rendezvous(sent(made) + pack_observed([]), SECRET, SENDER, RECEIVER)
    assert received.candidates == (Candidate(CandidateKind.HOST, "fe80::1", 5),)


@pytest.mark.parametrize("ip", ["::ffff:192.0.2.1", "64:ff9b::192.0.2.1"])
def test_an_ipv6_address_that_is_written_with_dots_is_one_of_16_bytes(ip: str) -> None:
    made = replace(MADE, candidates=(Candidate(CandidateKind.HOST, ip, 5),))
    (received, observed) = decode_rendezvous(sent(made) + pack_observed([(ip, 7)]), SECRET, SENDER, RECEIVER)
    for found in (received.candidates[0].ip, observed[0][0]):
        assert ipaddress.ip_address(found) == ipaddress.ip_address(ip)

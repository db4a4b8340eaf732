"""Port mapping by PCP and NAT-PMP: the bytes of the RFCs, and what happens when routers answer differently."""

import pytest

from causeway_client.protocol.paths.port_mapping import LIFETIME, REPEATS, RETRY, PortMapped, PortMapper

ROUTER = ("192.168.1.1", 5351)
NONCE = bytes(range(12))
# RFC 6887, 7.1 and 11.1: version, opcode, lifetime, client's address; nonce, protocol, ports, external address.
PCP_REQUEST = bytes.fromhex(
    "02010000" "00001c20" "00000000000000000000ffffc0a80114"
    "000102030405060708090a0b" "11000000" "c350" "c350" "00000000000000000000ffff00000000"
)  # fmt: skip
PCP_ANSWER = bytes.fromhex(
    "02810000" "00000e10" "00000001" "000000000000000000000000"
    "000102030405060708090a0b" "11000000" "c350" "9c41" "00000000000000000000ffffcb007109"
)  # fmt: skip
PMP_REQUESTS = [bytes.fromhex("0000"), bytes.fromhex("00010000c350c35000001c20")]  # RFC 6886, 3.2 and 3.3
PMP_ADDRESS = bytes.fromhex("0080000000000001cb007109")
PMP_MAPPED = bytes.fromhex("0081000000000001c3509c4100000e10")


@pytest.fixture
def mapper() -> PortMapper:
    mapper = PortMapper(ROUTER, "192.168.1.20", 50_000, random=lambda size: NONCE[:size])
    mapper.start(0.0)
    return mapper


def sent(mapper: PortMapper, now: float) -> list[bytes]:
    outgoing = mapper.datagrams_to_send(now)
    assert all(address == ROUTER for _, address in outgoing)
    return [data for data, _ in outgoing]


def test_the_first_request_is_pcp(mapper):
    assert sent(mapper, 0.0) == [PCP_REQUEST]


def test_a_granted_mapping_is_reported_and_renewed_at_half_of_its_lifetime(mapper):
    sent(mapper, 0.0)
    mapper.receive_datagram(PCP_ANSWER, ROUTER, 0.1)
    assert mapper.next_event() == PortMapped("203.0.113.9", 40_001, "pcp")
    assert mapper.next_timer() == 0.1 + 3600 / 2
    mapper.handle_timer(mapper.next_timer())
    (renewal,) = sent(mapper, 1800.1)
    assert renewal[42:44] == (40_001).to_bytes(2, "big")  # it suggests the port that it has
    mapper.receive_datagram(PCP_ANSWER, ROUTER, 1800.2)
    assert mapper.next_event() is None


def test_a_router_that_knows_only_nat_pmp_is_asked_by_it(mapper):
    sent(mapper, 0.0)
    mapper.receive_datagram(bytes.fromhex("008100010000000100000000"), ROUTER, 0.1)  # unsupported version
    assert sent(mapper, 0.1) == PMP_REQUESTS
    mapper.receive_datagram(PMP_ADDRESS, ROUTER, 0.2)
    mapper.receive_datagram(PMP_MAPPED, ROUTER, 0.2)
    assert mapper.next_event() == PortMapped("203.0.113.9", 40_001, "nat_pmp")


def test_a_silent_router_costs_a_few_packets_and_is_asked_again_later(mapper):
    packets, now = len(sent(mapper, 0.0)), 0.0
    while (at := mapper.next_timer()) is not None and at < RETRY:
        now = at
        mapper.handle_timer(now)
        packets += len(sent(mapper, now))
    assert packets <= 1 + 2 * len(REPEATS)
    assert mapper.next_event() is None
    assert mapper.next_timer() == now + RETRY


def test_the_answer_to_another_request_is_ignored(mapper):
    sent(mapper, 0.0)
    mapper.receive_datagram(PCP_ANSWER[:24] + b"\xff" * 12 + PCP_ANSWER[36:], ROUTER, 0.1)
    assert mapper.next_event() is None
    assert mapper.dropped["unknown_nonce"] == 1


def test_a_refusal_ends_the_attempt(mapper):
    sent(mapper, 0.0)
    mapper.receive_datagram(PCP_ANSWER[:3] + b"\x02" + PCP_ANSWER[4:], ROUTER, 0.1)
    assert mapper.next_event() is None
    assert mapper.next_timer() == 0.1 + RETRY


def test_a_lost_mapping_is_reported(mapper):
    sent(mapper, 0.0)
    mapper.receive_datagram(PCP_ANSWER, ROUTER, 0.1)
    assert mapper.next_event() is not None
    for _ in range(2 + len(REPEATS)):
        mapper.handle_timer(mapper.next_timer())
    assert mapper.next_event() == PortMapped(None, 0, "pcp")


def test_the_mapping_is_given_back_at_the_end(mapper):
    sent(mapper, 0.0)
    mapper.receive_datagram(PCP_ANSWER, ROUTER, 0.1)
    mapper.stop()
    (last,) = sent(mapper, 1.0)
    assert last[4:8] == bytes(4)
    assert mapper.next_timer() is None


def test_no_bytes_raise(mapper):
    for size in range(64):
        for first in (b"\x00\x80", b"\x00\x81", b"\x02\x81", b"\xff\xff"):
            mapper.receive_datagram((first + bytes(62))[:size], ROUTER, 0.1)


def test_the_requested_lifetime_is_that_of_the_design() -> None:
    assert LIFETIME == 7200

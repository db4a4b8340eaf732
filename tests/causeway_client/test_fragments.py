"""Fragments between sidecars: whole again or not at all, whatever comes."""

import random

import pytest

from causeway_client import fragments
from causeway_client.fragments import (
    MARK,
    MAX_DATAGRAM,
    MAX_PARTIAL,
    MAX_PARTIAL_BYTES,
    REASSEMBLY_TIMEOUT,
    Fragmenter,
    Reassembler,
)

MAX_PAYLOAD = 1182


def datagram_of(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@pytest.mark.parametrize("size", [0, 1, 1182])
def test_what_fits_is_sent_as_it_is(size: int) -> None:
    datagram = datagram_of(size)
    assert Fragmenter().split(datagram, MAX_PAYLOAD) == [datagram]
    assert Reassembler().receive(1, datagram, 0.0) == datagram


@pytest.mark.parametrize("size", [1183, 1392, 1500, 2341, 9000, MAX_DATAGRAM])
def test_what_does_not_fit_arrives_whole_in_any_order(size: int) -> None:
    datagram, reassembler = datagram_of(size), Reassembler()
    parts = Fragmenter().split(datagram, MAX_PAYLOAD)
    assert max(map(len, parts)) <= MAX_PAYLOAD
    random.Random(1).shuffle(parts)
    found = [reassembler.receive(1, part, 0.0) for part in parts]
    assert found == [None] * (len(parts) - 1) + [datagram]
    assert reassembler.partial_bytes == 0


def test_a_datagram_that_looks_like_a_fragment_arrives_as_it_was() -> None:
    datagram = MARK + b"\x01\x00\x00\x02 of the game's own"
    (part,) = Fragmenter().split(datagram, MAX_PAYLOAD)
    assert Reassembler().receive(1, part, 0.0) == datagram


def test_datagrams_of_several_sources_and_of_one_do_not_mix() -> None:
    reassembler, one, other = Reassembler(), Fragmenter(), Fragmenter()
    wanted = {(source, number): datagram_of(3000 + 10 * source + number) for source in (1, 2) for number in range(4)}
    sent = [
        (source, part)
        for (source, _), datagram in wanted.items()
        for part in (one if source == 1 else other).split(datagram, MAX_PAYLOAD)
    ]
    random.Random(2).shuffle(sent)
    found = [(source, whole) for source, part in sent if (whole := reassembler.receive(source, part, 0.0))]
    assert sorted(found) == sorted((source, datagram) for (source, _), datagram in wanted.items())


def test_a_datagram_with_a_lost_fragment_is_given_up_in_time() -> None:
    reassembler = Reassembler()
    first, *_ = Fragmenter().split(datagram_of(3000), MAX_PAYLOAD)
    assert reassembler.receive(1, first, 0.0) is None
    assert reassembler.receive(2, b"later", REASSEMBLY_TIMEOUT + 0.1) == b"later"
    assert reassembler.partial_bytes == 0
    assert reassembler.dropped == {"incomplete": 1}


@pytest.mark.parametrize(
    "header", [b"", b"\0", b"\1\0\0\0", b"\1\0\0\0x", b"\1\0\5\5x", b"\1\0\0\xffx", b"\1\0\xff\2x", b"\1\0\0\1"]
)
def test_what_is_no_fragment_is_dropped(header: bytes) -> None:
    reassembler = Reassembler()
    assert reassembler.receive(1, MARK + header, 0.0) is None
    assert (reassembler.partial_bytes, reassembler.dropped) == (0, {"malformed": 1})


def test_a_second_copy_and_another_count_change_nothing() -> None:
    reassembler, datagram = Reassembler(), datagram_of(2000)
    first, second = Fragmenter().split(datagram, MAX_PAYLOAD)
    assert reassembler.receive(1, first, 0.0) is None
    assert reassembler.receive(1, first[:12] + b"forged", 0.0) is None
    assert reassembler.receive(1, first[:11] + b"\x09" + first[12:], 0.0) is None
    assert reassembler.receive(1, second, 0.0) == datagram


def test_one_source_that_never_ends_what_it_begins_keeps_no_other_from_arriving() -> None:
    reassembler, honest = Reassembler(), Fragmenter()
    hostile = Fragmenter()
    for number in range(5000):
        reassembler.receive("hostile", hostile.split(datagram_of(MAX_DATAGRAM), MAX_PAYLOAD)[number % 9], 0.0)
        assert reassembler.partial_bytes <= MAX_PARTIAL * 10 * MAX_PAYLOAD
    datagram = datagram_of(5000)
    assert [reassembler.receive("honest", part, 0.0) for part in honest.split(datagram, MAX_PAYLOAD)][-1] == datagram


def test_many_sources_together_take_no_more_than_there_is_room_for() -> None:
    reassembler = Reassembler()
    for source in range(300):
        for part in Fragmenter().split(datagram_of(MAX_DATAGRAM), MAX_PAYLOAD)[:-1]:
            reassembler.receive(source, part, 0.0)
            assert reassembler.partial_bytes <= MAX_PARTIAL_BYTES
    assert len(reassembler._of_source) <= 300


@pytest.mark.parametrize(
    ("size", "room"), [(MAX_DATAGRAM + 1, MAX_PAYLOAD), (1000, fragments._HEADER.size), (9000, 50)]
)
def test_what_cannot_be_sent_is_an_error(size: int, room: int) -> None:
    with pytest.raises(ValueError):
        Fragmenter().split(datagram_of(size), room)


def test_nothing_is_raised_whatever_comes() -> None:
    rng, reassembler = random.Random(3), Reassembler()
    for step in range(20_000):
        payload = MARK[: rng.choice((0, 4, 8, 8, 8))] + rng.randbytes(rng.randrange(40))
        reassembler.receive(rng.randrange(4), payload, step / 100)
    assert reassembler.partial_bytes < 4 * MAX_PARTIAL * 64 * 40

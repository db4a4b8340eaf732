import random

import pytest

from causeway_client.protocol import handshake
from causeway_client.protocol.errors import DecodeError, Refusal
from causeway_client.protocol.joining import MAX_CLOCK_LEAD, MAX_IMMEDIATE_ANSWERS, REPEAT_AFTER, Joining

TOKEN = bytes(120)
SEAT_KEY = bytes(range(32))


class Clock:
    now = 1_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def joining(clock):
    return Joining(TOKEN, SEAT_KEY, clock, random.Random(1).randbytes)


def test_a_connect_carries_token_timestamp_and_right_mac(joining):
    data = joining.start(0.0)
    connect = handshake.decode_connect(data)
    assert (connect.token, connect.timestamp, connect.cookie) == (TOKEN, 1_000_000, handshake.NO_COOKIE)
    assert handshake.is_connect_mac_valid(data, connect, SEAT_KEY)


def test_the_same_connect_is_repeated_with_back_off(joining):
    first = joining.start(0.0)
    now, waits = 0.0, []
    for _ in range(len(REPEAT_AFTER) - 1):
        waits.append(joining.repeat_at - now)
        now = joining.repeat_at
        assert joining.repeat(now) == first
    assert waits == pytest.approx([0.25, 0.5, 1.0, 2.0])


def test_after_the_last_wait_a_new_connect_is_made(joining):
    first = handshake.decode_connect(joining.start(0.0))
    for _ in range(len(REPEAT_AFTER)):
        last = handshake.decode_connect(joining.repeat(joining.repeat_at))
    assert last.nonce != first.nonce
    assert last.timestamp > first.timestamp


def test_timestamps_grow_though_the_clock_steps_back(joining, clock):
    first = handshake.decode_connect(joining.start(0.0))
    clock.now = 5
    second = handshake.decode_connect(joining.start(1.0))
    assert second.timestamp == first.timestamp + 1


def test_a_cookie_is_put_into_the_same_connect_at_once(joining):
    first = handshake.decode_connect(joining.start(0.0))
    data = joining.receive_cookie(handshake.Cookie(first.nonce, b"c" * 16).encode(), 0.1)
    again = handshake.decode_connect(data)
    assert (again.timestamp, again.nonce, again.cookie) == (first.timestamp, first.nonce, b"c" * 16)
    assert handshake.is_connect_mac_valid(data, again, SEAT_KEY)


def test_cookies_without_end_are_not_answered_at_once_without_end(joining):
    nonce = handshake.decode_connect(joining.start(0.0)).nonce
    answers = [joining.receive_cookie(handshake.Cookie(nonce, bytes([n]) * 16).encode(), 0.1) for n in range(10)]
    assert sum(answer is not None for answer in answers) == MAX_IMMEDIATE_ANSWERS
    assert handshake.decode_connect(joining.repeat(joining.repeat_at)).cookie == bytes([9]) * 16


def test_a_stale_timestamp_is_answered_with_a_later_one(joining):
    first = handshake.decode_connect(joining.start(0.0))
    refused = handshake.Refused(first.nonce, Refusal.STALE_TIMESTAMP, detail=9_000_000)
    again = handshake.decode_connect(joining.receive_refused(refused.encode(), 0.1))
    assert again.timestamp == 9_000_001
    assert again.nonce != first.nonce


def test_a_node_that_calls_every_timestamp_stale_is_believed_in_the_end(joining):
    nonce = handshake.decode_connect(joining.start(0.0)).nonce
    for n in range(MAX_IMMEDIATE_ANSWERS + 1):
        answer = joining.receive_refused(
            handshake.Refused(nonce, Refusal.STALE_TIMESTAMP, detail=2_000_000 + 10 * n).encode(), 0.1
        )
        if isinstance(answer, bytes):
            nonce = handshake.decode_connect(answer).nonce
    assert answer.code == Refusal.STALE_TIMESTAMP


@pytest.mark.parametrize("detail", [1_000_000 + MAX_CLOCK_LEAD + 1, 2**64 - 2, 2**64 - 1])
def test_a_forged_refusal_does_not_use_up_the_timestamps_of_the_seat(joining, detail):
    nonce = handshake.decode_connect(joining.start(0.0)).nonce
    refused = handshake.Refused(nonce, Refusal.STALE_TIMESTAMP, detail=detail)
    assert joining.receive_refused(refused.encode(), 0.1) == refused
    assert handshake.decode_connect(joining.start(1.0)).timestamp == 1_000_001


def test_a_clock_that_fell_back_to_its_epoch_goes_on_from_what_the_node_saw(joining):
    nonce = handshake.decode_connect(joining.start(0.0)).nonce
    seen = 60 * 365 * 86_400 * 10**6
    again = joining.receive_refused(handshake.Refused(nonce, Refusal.STALE_TIMESTAMP, detail=seen).encode(), 0.1)
    assert handshake.decode_connect(again).timestamp == seen + 1


@pytest.mark.parametrize("answer", [handshake.Cookie(b"x" * 16, b"c" * 16), handshake.Refused(b"x" * 16, Refusal.FULL)])
def test_an_answer_with_another_nonce_is_dropped(joining, answer):
    joining.start(0.0)
    receive = joining.receive_cookie if isinstance(answer, handshake.Cookie) else joining.receive_refused
    with pytest.raises(DecodeError, match="unknown_nonce"):
        receive(answer.encode(), 0.1)


def test_answers_are_dropped_when_nothing_is_outstanding(joining):
    nonce = handshake.decode_connect(joining.start(0.0)).nonce
    joining.stop()
    assert joining.repeat_at is None
    with pytest.raises(DecodeError, match="unknown_nonce"):
        joining.receive_refused(handshake.Refused(nonce, Refusal.FULL).encode(), 0.1)

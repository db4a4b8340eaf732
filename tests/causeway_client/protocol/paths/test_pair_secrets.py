"""Secrets and keys of pairs (PROTOCOL.md 12.1 and 12.3). The vectors are in ../test_vectors.py."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causeway_client.protocol.paths.pair_secrets import (
    PAIR_SECRET_SIZE,
    PEER_KEY_SIZE,
    PeerKeys,
    direct_key,
    pack_peer_keys,
    unpack_peer_keys,
)

PEER_KEYS = [bytes((seat + 1,)) * PEER_KEY_SIZE for seat in range(6)]


def keys_of(seat: int) -> PeerKeys:
    return unpack_peer_keys(pack_peer_keys(PEER_KEYS[seat], PEER_KEYS[:seat]))


def test_two_players_have_the_same_secret_and_every_pair_has_its_own() -> None:
    players = [keys_of(seat) for seat in range(6)]
    assert [player.seat for player in players] == list(range(6))
    secrets = {}
    for one, other in itertools.combinations(players, 2):
        assert one.secret(other.seat) == other.secret(one.seat)
        secrets[one.seat, other.seat] = one.secret(other.seat)
    assert len(set(secrets.values())) == 15
    assert {len(secret) for secret in secrets.values()} == {PAIR_SECRET_SIZE}


def test_what_a_player_receives_contains_no_secret_of_two_others() -> None:
    """Nor a peer key of another seat, from which such a secret could be derived."""
    for seat in range(6):
        packed = pack_peer_keys(PEER_KEYS[seat], PEER_KEYS[:seat])
        for one, other in itertools.combinations(range(6), 2):
            if seat not in (one, other):
                assert keys_of(one).secret(other) not in packed
        assert not any(key in packed for key in PEER_KEYS if key != PEER_KEYS[seat])


def test_the_keys_of_a_player_do_not_change_when_others_join() -> None:
    assert keys_of(2).secret(5) == keys_of(5).secret(2)
    assert pack_peer_keys(PEER_KEYS[0], []) == PEER_KEYS[0]


@pytest.mark.parametrize("size", [0, 16, 31, 33, 47, 49, 32 + 16 * 255])
def test_other_lengths_are_refused_without_showing_the_bytes(size: int) -> None:
    with pytest.raises(ValueError, match="32 bytes, and 16 for each lower seat") as caught:
        unpack_peer_keys(b"\xaa" * size)
    assert "aa" not in str(caught.value)


def test_seat_254_has_the_longest_peer_keys() -> None:
    assert unpack_peer_keys(bytes(32 + 16 * 254)).seat == 254


def test_keys_are_in_no_repr() -> None:
    assert PEER_KEYS[3].hex() not in repr(keys_of(3)) and repr(PEER_KEYS[3]) not in repr(keys_of(3))


@given(
    st.integers(0, 254), st.integers(0, 254), st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16)
)
def test_both_ends_derive_the_key_of_a_direction(sender: int, receiver: int, mine: bytes, theirs: bytes) -> None:
    """Whichever of the two is the lower seat."""
    if sender == receiver:
        return
    key = direct_key(bytes(16), sender, receiver, mine, theirs)
    assert len(key) == 16
    assert key != direct_key(bytes(16), receiver, sender, theirs, mine), "the other direction has another key"
    assert key != direct_key(b"x" * 16, sender, receiver, mine, theirs)
    if mine != theirs:
        assert key != direct_key(bytes(16), sender, receiver, theirs, mine)

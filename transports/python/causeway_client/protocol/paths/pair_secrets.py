"""The secrets that two players share and no node knows (PROTOCOL.md 12.1), and the keys of their packets (12.3)."""

import hmac
from dataclasses import dataclass

from ..packets import MAX_SEATS, mac

PEER_KEY_SIZE = 32
PAIR_SECRET_SIZE = 16


def pair_secret(peer_key: bytes, higher_seat: int) -> bytes:
    """The 16-byte secret of two seats, from the peer key of the lower one."""
    return mac(peer_key, b"causeway v1 pair" + bytes((higher_seat,)))


def pack_peer_keys(peer_key: bytes, lower_peer_keys: list[bytes]) -> bytes:
    """The peer keys of the seat that follows those of `lower_peer_keys`: its own, and its secrets with them."""
    seat = len(lower_peer_keys)
    return peer_key + b"".join(pair_secret(key, seat) for key in lower_peer_keys)


@dataclass(frozen=True, slots=True, repr=False)
class PeerKeys:
    """The peer keys of one seat, as the manager gave them to its player."""

    seat: int
    own: bytes
    with_lower: tuple[bytes, ...]  # by seat number

    def secret(self, peer: int) -> bytes:
        """The secret that the seat shares with `peer`, another seat of the session."""
        return self.with_lower[peer] if peer < self.seat else pair_secret(self.own, peer)


def unpack_peer_keys(packed: bytes) -> PeerKeys:
    """Raises ValueError if these are no peer keys."""
    seat, rest = divmod(len(packed) - PEER_KEY_SIZE, PAIR_SECRET_SIZE)
    if rest or not 0 <= seat < MAX_SEATS:
        raise ValueError(f"expected peer keys: {PEER_KEY_SIZE} bytes, and {PAIR_SECRET_SIZE} for each lower seat")
    ends = range(PEER_KEY_SIZE, len(packed), PAIR_SECRET_SIZE)
    return PeerKeys(seat, packed[:PEER_KEY_SIZE], tuple(packed[at : at + PAIR_SECRET_SIZE] for at in ends))


def direct_key(secret: bytes, sender: int, receiver: int, sender_nonce: bytes, receiver_nonce: bytes) -> bytes:
    """The 16-byte key of the packets that `sender` sends to `receiver`."""
    nonces = sender_nonce + receiver_nonce if sender < receiver else receiver_nonce + sender_nonce
    return hmac.digest(secret, b"causeway v1 direct" + bytes((sender, receiver)) + nonces, "sha256")[:16]

"""The keys by which two players authenticate each other without the node (PROTOCOL.md 12.1).

The key of each seat is derived from a root secret of the session, which is stored encrypted. The keys leave the manager
in the responses for players only: no grant, token, webhook, log or page contains any, so no node can read or forge what
two players exchange.
"""

import base64
import hmac
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING

from causeway_client.protocol.paths.pair_secrets import PEER_KEY_SIZE, pack_peer_keys

from .modes import RELAY_ONLY

if TYPE_CHECKING:
    from ..models import RelaySession, Seat


def new_peer_root() -> str:
    """32 random bytes in base64url."""
    return base64.urlsafe_b64encode(secrets.token_bytes(PEER_KEY_SIZE)).decode()


def peer_key(root: bytes, seat: int) -> bytes:
    """The 32-byte peer key of a seat."""
    return hmac.digest(root, b"causeway v1 peer key" + bytes((seat,)), "sha256")


def seats_show_peer_keys(session: "RelaySession", seats: Sequence["Seat"]) -> None:
    """Sets the peer keys that the player of each of these seats gets, in base64url; None for a seat without direct
    paths."""
    shown = [seat for seat in seats if session.peer_root and seat.direct_mode != RELAY_ONLY]
    for seat in seats:
        seat.peer_keys = None
    if shown and session.peer_root:
        root = base64.urlsafe_b64decode(session.peer_root)
        keys = [peer_key(root, number) for number in range(1 + max(seat.number for seat in shown))]
        for seat in shown:
            packed = pack_peer_keys(keys[seat.number], keys[: seat.number])
            seat.peer_keys = base64.urlsafe_b64encode(packed).decode()

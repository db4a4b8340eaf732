"""Sessions granted to a real node, and the credentials of their seats."""

import base64
import secrets
import time
from collections.abc import Sequence
from typing import Any

from causeway_client.credentials import Standby
from causeway_client.protocol.offers import seat_key_of_nonce
from causeway_client.protocol.packets import DirectMode
from causeway_client.protocol.paths.pair_secrets import pack_peer_keys
from causeway_client.protocol.paths.wire import DirectSettings
from causeway_client.protocol.tokens import ConnectToken, new_token_nonce, seal_token
from tests.support.grants import grant_document
from tests.support.node_process import NodeProcess

SEATS = 4
# No packet leaves the machine. On 127.0.0.1 the relay measures as well as a direct path, and better on a busy machine.
ALONE = DirectSettings(relay_bias_ms=10_000, port_mapping=False)


class _Session:
    topology: str

    def __init__(self, node: NodeProcess, seats: int) -> None:
        self.node = node
        self.id = secrets.token_hex(6) + "-S"
        self.revision = 0
        self.expires = int(time.time()) + 3600
        self.seat_keys = [secrets.token_bytes(32) for _ in range(seats)]

    def new_token(self, seat: int, **changes: Any) -> ConnectToken:
        fields: dict[str, Any] = {
            "session": self.id,
            "worker": 0,
            "seat": seat,
            "mesh": self.topology == "mesh",
            "seat_key": self.seat_keys[seat],
            "issued": int(time.time()),
            "expires": self.expires,
            "seat_packets": 0,
            "seat_bytes": 0,
            "session_packets": 0,
            "session_bytes": 0,
            "idle_timeout": 300,
            "session_expires": self.expires,
            **changes,
        }
        return ConnectToken(**fields)

    def connect_token(self, seat: int, **changes: Any) -> bytes:
        return seal_token(self.new_token(seat, **changes), *self.node.token_key)


class GrantedSession(_Session):
    """SEATS players of both dialects."""

    def __init__(self, node: NodeProcess, topology: str = "host") -> None:
        super().__init__(node, SEATS)
        self.topology = topology
        # Random, but never what the wire keeps for other protocols (PROTOCOL.md 2).
        self.token = 0x21000000 + secrets.randbelow(1 << 20)
        self.user_tokens = [0xE0000000 + (secrets.randbelow(1 << 16) << 8) + seat for seat in range(SEATS)]
        self.grant()

    def grant(self, revoked: tuple[int, ...] = ()) -> None:
        self.revision += 1
        document = grant_document(
            expires_at=float(self.expires),
            session=self.id,
            revision=self.revision,
            token=self.token,
            topology=self.topology,
            tokens=self.user_tokens,
            revoked=revoked,
        )
        self.node.put_grant(document)

    def delete(self) -> None:
        self.node.delete_session(self.id)

    def port(self, seat: int) -> int:
        return self.node.server_port if seat == 0 else self.node.client_port

    def native(self, seat: int) -> dict[str, bytes]:
        """`connect_token` and `seat_key`."""
        return {"connect_token": self.connect_token(seat), "seat_key": self.seat_keys[seat]}

    def edgegap(self, seat: int) -> dict[str, int]:
        """`user_token` and `session_token`."""
        return {"user_token": self.user_tokens[seat], "session_token": self.token}


class DirectSession(_Session):
    """A mesh session of native players."""

    topology = "mesh"

    def __init__(self, node: NodeProcess, modes: Sequence[str] = ("direct", "direct")) -> None:
        super().__init__(node, len(modes))
        self.modes = modes
        self.peer_keys = [secrets.token_bytes(32) for _ in modes]
        self.grant()

    def grant(self, revoked: tuple[int, ...] = ()) -> None:
        self._put(self.node, revoked=revoked, direct_modes=dict(enumerate(self.modes)), direct_grace=60)

    def _put(self, node: NodeProcess, **changes: Any) -> None:
        """Grants the next revision. `changes`: as of `grant_document`."""
        self.revision += 1
        document = grant_document(
            expires_at=float(self.expires),
            session=self.id,
            revision=self.revision,
            token=None,
            topology=self.topology,
            dialects=["native"],
            tokens=[None] * len(self.modes),
            **changes,
        )
        node.put_grant(document)

    def player(self, seat: int) -> dict[str, Any]:
        """Arguments of `connect`."""
        mode = DirectMode[self.modes[seat].upper()]
        return {
            "connect_token": self.connect_token(seat, direct_mode=mode, direct_grace=60),
            "seat_key": self.seat_keys[seat],
            "peer_keys": pack_peer_keys(self.peer_keys[seat], self.peer_keys[:seat]),
            "direct": ALONE,
        }


class TwoRelaySession(DirectSession):
    """A mesh session of native players with a leg to each of two nodes."""

    def __init__(self, node: NodeProcess, standby: NodeProcess, seats: int = 2) -> None:
        super().__init__(node, ["relay_only"] * seats)
        self.offer_keys = [secrets.token_bytes(32) for _ in range(seats)]
        self.standby = standby
        self._put(standby, role="standby")

    def move(self, at: NodeProcess, to: NodeProcess, number: int, deadline_ms: int = 10_000) -> None:
        """The node `at` offers every player to move to the node `to`. `number`: that of the offer, higher each time."""
        offers = {
            seat: {
                "id": number,
                "kind": "move",
                "ip": to.ip,
                "port": to.client_port,
                "token": base64.urlsafe_b64encode(self.offered_token(to, seat)).decode(),
                "deadline_ms": deadline_ms,
            }
            for seat in range(len(self.modes))
        }
        self._put(at, offers=offers)

    def offered_token(self, node: NodeProcess, seat: int) -> bytes:
        """A connect token for another node, whose seat key is derived from the offer key."""
        nonce = new_token_nonce()
        key = seat_key_of_nonce(self.offer_keys[seat], nonce)
        token = self.new_token(seat, seat_key=key, is_standby=True)
        return seal_token(token, *node.token_key, nonce=nonce)

    def player(self, seat: int) -> dict[str, Any]:
        """Arguments of `connect`."""
        standby = Standby(self.standby.ip, self.standby.client_port, self.offered_token(self.standby, seat))
        return super().player(seat) | {"offer_key": self.offer_keys[seat], "standby": standby}

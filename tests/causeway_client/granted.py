"""A session granted to a real node, and the credentials of its seats."""

import secrets
import time

from causeway_client.protocol.tokens import ConnectToken, seal_token
from tests.support.grants import grant_document
from tests.support.node_process import NodeProcess

SEATS = 4


class GrantedSession:
    def __init__(self, node: NodeProcess, topology: str = "host") -> None:
        self.node = node
        self.id = secrets.token_hex(6) + "-S"
        self.topology = topology
        self.revision = 0
        self.expires = int(time.time()) + 3600
        # Random, but never what the wire keeps for other protocols (PROTOCOL.md 2).
        self.token = 0x21000000 + secrets.randbelow(1 << 20)
        self.user_tokens = [0xE0000000 + (secrets.randbelow(1 << 16) << 8) + seat for seat in range(SEATS)]
        self.seat_keys = [secrets.token_bytes(32) for _ in range(SEATS)]
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
        token = ConnectToken(
            session=self.id,
            worker=0,
            seat=seat,
            mesh=self.topology == "mesh",
            seat_key=self.seat_keys[seat],
            issued=int(time.time()),
            expires=self.expires,
            seat_packets=0,
            seat_bytes=0,
            session_packets=0,
            session_bytes=0,
            idle_timeout=300,
            session_expires=self.expires,
        )
        return {"connect_token": seal_token(token, *self.node.token_key), "seat_key": self.seat_keys[seat]}

    def edgegap(self, seat: int) -> dict[str, int]:
        """`user_token` and `session_token`."""
        return {"user_token": self.user_tokens[seat], "session_token": self.token}

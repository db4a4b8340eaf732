"""A real relay node in the lab: the STUN server of all players, and the relay of Causeway's."""

import base64
import secrets
import time
from typing import Any

from causeway_client.protocol.packets import DirectMode
from causeway_client.protocol.paths.pair_secrets import PEER_KEY_SIZE, pack_peer_keys
from causeway_client.protocol.tokens import SEAT_KEY_SIZE, ConnectToken, seal_token
from natlab.lab import Host
from tests.support.node_process import NodeProcess

LIFETIME = 3600  # seconds of a session


class LabNode(NodeProcess):
    """A node on a server of the lab."""

    def __init__(self, host: Host, **settings: str) -> None:
        ipv4, ipv6 = host.addresses
        super().__init__(1, PUBLIC_IP=ipv4, PUBLIC_IPV6=ipv6, PACKET_PATH="userspace", **settings)
        self.host = host
        self.command = host.namespace.command(self.command)

    def call(self, method: str, path: str, body: object = None, key: str | None = None) -> tuple[int, Any]:
        return self.host.namespace.call(lambda: super(LabNode, self).call(method, path, body, key))

    @property
    def stun(self) -> list[tuple[str, int]]:
        return [(address, self.client_port) for address in self.host.addresses]

    def session(self, *, mode: DirectMode = DirectMode.DIRECT, seats: int = 2) -> list[dict[str, Any]]:
        """What the players of a new mesh session need to connect, by seat: `node`, `connect_token`, `seat_key` and
        `peer_keys`. The tokens alone admit them, without a manager."""
        now = int(time.time())
        session = f"{secrets.token_hex(6)}-S"
        peer_keys = [secrets.token_bytes(PEER_KEY_SIZE) for _ in range(seats)]
        return [self._credentials(session, seat, now, mode, peer_keys) for seat in range(seats)]

    def _credentials(
        self, session: str, seat: int, now: int, mode: DirectMode, peer_keys: list[bytes]
    ) -> dict[str, Any]:
        seat_key = secrets.token_bytes(SEAT_KEY_SIZE)
        token = ConnectToken(
            session=session,
            worker=0,
            seat=seat,
            mesh=True,
            seat_key=seat_key,
            issued=now,
            expires=now + LIFETIME,
            seat_packets=0,
            seat_bytes=0,
            session_packets=0,
            session_bytes=0,
            idle_timeout=60,
            session_expires=now + LIFETIME,
            direct_mode=mode,
        )
        return {
            "node": {"hosts": self.host.addresses, "port": self.client_port},
            "connect_token": _text(seal_token(token, *self.token_key)),
            "seat_key": _text(seat_key),
            "peer_keys": _text(pack_peer_keys(peer_keys[seat], peer_keys[:seat])),
        }


def _text(secret: bytes) -> str:
    return base64.urlsafe_b64encode(secret).decode()

"""A real relay node in the lab: the STUN server of all players, and the relay of Causeway's, over UDP or TLS."""

import base64
import secrets
import time
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from causeway_client.protocol.packets import DirectMode
from causeway_client.protocol.paths.pair_secrets import PEER_KEY_SIZE, pack_peer_keys
from causeway_client.protocol.tokens import SEAT_KEY_SIZE, ConnectToken, seal_token
from natlab.lab import Host
from tests.support.node_process import NodeProcess

LIFETIME = 3600  # seconds of a session
WEBSOCKET_PORT = 443


class LabNode(NodeProcess):
    """A node on a server of the lab."""

    def __init__(self, host: Host, **settings: str) -> None:
        ipv4, ipv6 = host.addresses
        super().__init__(1, PUBLIC_IP=ipv4, PUBLIC_IPV6=ipv6, PACKET_PATH="userspace", **settings)
        self.machine = host
        self._certificate, key = _self_signed(ipv4)
        folder = self.state_dir.parent
        for name, content in (("certificate", self._certificate), ("key", key)):
            folder.joinpath(name).write_text(content)
            self._settings[f"TLS_{name.upper()}"] = str(folder / name)
        self._settings["WEBSOCKET_PORT"] = str(WEBSOCKET_PORT)
        self.command = host.namespace.command(self.command)

    def call(self, method: str, path: str, body: object = None, key: str | None = None) -> tuple[int, Any]:
        return self.machine.namespace.call(lambda: super(LabNode, self).call(method, path, body, key))

    @property
    def stun(self) -> list[tuple[str, int]]:
        return [(address, self.client_port) for address in self.machine.addresses]

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
            "node": {
                "hosts": self.machine.addresses,
                "port": self.client_port,
                "websocket_url": f"wss://{self.machine.address}/relay/{self.client_port}",
                "certificate": self._certificate,
            },
            "connect_token": _text(seal_token(token, *self.token_key)),
            "seat_key": _text(seat_key),
            "peer_keys": _text(pack_peer_keys(peer_keys[seat], peer_keys[:seat])),
        }


def _self_signed(ip: str) -> tuple[str, str]:
    """Certificate and key, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ip)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(ip))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, encryption = serialization.Encoding.PEM, serialization.NoEncryption()
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, encryption)
    return certificate.public_bytes(pem).decode(), private.decode()


def _text(secret: bytes) -> str:
    return base64.urlsafe_b64encode(secret).decode()

"""How a node becomes and stays a member of the installation: join, heartbeat, and the list of what it is to serve.

The manager validates the requests with the serializers of `relaymgr.nodes.apis`, which report every wrong field and
describe themselves in the OpenAPI document; a test keeps their fields equal to these.
"""

import ipaddress
import re
from typing import Annotated, Any

from msgspec import Meta, Struct

from .grants import U32
from .peers import MAX_NODE_NAME

MAX_CAPACITY = 1_000_000  # seats of a node
MAX_HOST, MAX_CONTROL_URL, MAX_WEBSOCKET_URL = 253, 200, 300  # characters
MAX_VERSION, MAX_BOOT_ID = 20, 40
MAX_PACKET_PATH, MAX_PACKET_PATH_REASON = 10, 200
MAX_KEY_IDS = 100
KEY_SIZE = 32  # bytes

HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*\.?")
_WEBSOCKET_URL = re.compile(r"wss?://(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9.-]{1,253}))(?::([0-9]{1,5}))?")

NodeName = Annotated[str, Meta(max_length=MAX_NODE_NAME)]
KeyText = Annotated[str, Meta(pattern=r"\A[\x20-\x7e]+\Z")]  # goes into an HTTP header


def is_websocket_url(text: str) -> bool:
    """wss://host or wss://host:port, or with ws: no user, path, query or fragment, with which a node could choose what
    its players send to another server."""
    found = _WEBSOCKET_URL.fullmatch(text) if len(text) <= MAX_WEBSOCKET_URL else None
    if found is None or (found[3] and not 1 <= int(found[3]) <= 65535):
        return False
    return _is_ipv6(found[1]) if found[1] else HOST_NAME.fullmatch(found[2]) is not None


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 6
    except ValueError:
        return False


class WorkerPorts(Struct, frozen=True):
    index: int
    server_port: int
    client_port: int


class TokenKey(Struct, frozen=True):
    """A key under which connect tokens are sealed (PROTOCOL.md 5). JSON carries the bytes in base64."""

    id: U32
    key: Annotated[bytes, Meta(min_length=KEY_SIZE, max_length=KEY_SIZE)]

    def __repr__(self) -> str:
        return f"TokenKey(id={self.id})"  # without the key


class _Description(Struct, frozen=True, kw_only=True):
    public_ip: str
    public_ipv6: str | None
    host: str
    websocket_url: str  # its base; empty: players cannot reach the node over WebSockets
    control_url: str
    time: float  # seconds since 1970, by the node's clock
    version: str
    capacity: int
    workers: list[WorkerPorts]


class JoinRequest(_Description, frozen=True, kw_only=True):
    name: NodeName


class JoinResponse(Struct, frozen=True, kw_only=True):
    node: str
    location: str
    node_key: KeyText
    control_key: KeyText
    token_keys: list[TokenKey]
    heartbeat_interval: float  # seconds
    time: float  # by the manager's clock

    def __repr__(self) -> str:
        return f"JoinResponse(node={self.node!r})"  # without keys


class Heartbeat(_Description, frozen=True, kw_only=True):
    boot_id: str
    key_ids: list[int]  # of the token keys that the node holds
    draining: bool
    packet_path: str
    packet_path_reason: str


class HeartbeatResponse(Struct, frozen=True, kw_only=True):
    key_ids: list[U32]  # of the token keys that the node must hold
    draining: bool = False  # whether an operator wants the node to drain
    heartbeat_interval: float = 0.0
    time: float = 0.0


class GrantList(Struct, frozen=True, kw_only=True):
    """Everything that a node is to serve. Grants are read one by one: an unreadable one must not stop the others."""

    time: float  # when the manager made the list
    token_keys: list[TokenKey]
    sessions: list[Any]

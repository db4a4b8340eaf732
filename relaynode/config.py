"""The settings of a node: NodeConfig, read from environment variables named CAUSEWAY_NODE_<FIELD>."""

import base64
import binascii
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

from configuration.environment import EnvironmentReader, Network, SettingError, Variable
from nodeapi.grants import MAX_WORKERS
from nodeapi.membership import MAX_CAPACITY, is_websocket_url
from observability.log_config import FORMATS, LEVELS, Format

from .core.relay_config import RelayConfig
from .errors import ConfigError

PREFIX = "CAUSEWAY_NODE_"
VERSION = "0.1.0"
MAX_PORT = 65535
LIMITS = (
    "connects_per_source",
    "refused_connects_per_source",
    "connects_per_seat",
    "probes_per_source",
    "stun_per_source",
    "bad_tokens_per_source",
    "connect_flood_threshold",
    "ping_flood_threshold",
    "unauthenticated_replies",
)
DEFAULTS = RelayConfig()
PacketPathChoice = Literal["auto", "userspace", "xdp"]
PACKET_PATHS: tuple[PacketPathChoice, ...] = ("auto", "userspace", "xdp")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,50}")
_WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound # nosec B104


@dataclass(frozen=True, slots=True)
class PortPair:
    """The two UDP ports of one worker (EDGEGAP.md W1): hosts connect to the first, all other players to the second."""

    server: int
    client: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """Every setting of a node. Keys are left out of its repr, so that they cannot reach a log with it."""

    name: str
    """CAUSEWAY_NODE_NAME: the node's name in the manager. Default: the machine's host name."""

    manager_url: str
    """CAUSEWAY_NODE_MANAGER_URL: the manager's base URL. Empty: the node runs without a manager."""

    join_key: str = field(repr=False)
    """CAUSEWAY_NODE_JOIN_KEY: authorises the node to join; ignored once it has joined."""

    control_key: str = field(repr=False)
    """CAUSEWAY_NODE_CONTROL_KEY: the key of the node's control API. Read only without a manager, which otherwise
    issues it."""

    token_keys: Mapping[int, bytes] = field(repr=False)
    """CAUSEWAY_NODE_TOKEN_KEYS: `id:base64` pairs separated by commas, 32 bytes each. Read only without a manager,
    which otherwise issues them."""

    public_ip: str
    """CAUSEWAY_NODE_PUBLIC_IP: the address at which players reach the node, IPv4 if it has both. Required with a
    manager."""

    public_ipv6: str
    """CAUSEWAY_NODE_PUBLIC_IPV6: the node's IPv6 address, in addition to an IPv4 address in the variable above
    ([ipv6.md](ipv6.md))."""

    host: str
    """CAUSEWAY_NODE_PUBLIC_HOST: a DNS name of the public addresses."""

    bind: str
    """CAUSEWAY_NODE_BIND: the local address of the UDP ports. Empty: all addresses, IPv4 and IPv6."""

    ports: tuple[PortPair, ...]
    """One pair of UDP ports for each worker.

    CAUSEWAY_NODE_PORTS: the pairs, as `server:client` separated by commas; the next two variables are then ignored.
    CAUSEWAY_NODE_WORKERS: the number of workers. Default: one per core.
    CAUSEWAY_NODE_BASE_PORT: the first port; worker i uses base+2i and base+2i+1. Default: 31000."""

    control_host: str
    """CAUSEWAY_NODE_CONTROL_HOST: the local address of the control API. Default: 127.0.0.1."""

    control_port: int
    """CAUSEWAY_NODE_CONTROL_PORT: the TCP port of the control API. Default: 8900."""

    control_url: str
    """CAUSEWAY_NODE_CONTROL_URL: the URL at which the manager reaches the control API. Default: built from the control
    host (or, if that is a wildcard address, the public address) and the control port."""

    websocket_port: int
    """CAUSEWAY_NODE_WEBSOCKET_PORT: the TCP port at which players whose network blocks UDP are served over WebSockets,
    usually 443 ([direct-paths.md](direct-paths.md)). 0: they are not. Default: 0."""

    websocket_bind: str
    """CAUSEWAY_NODE_WEBSOCKET_BIND: the local address of the WebSocket port. Default: the one of the UDP ports."""

    websocket_url: str
    """CAUSEWAY_NODE_WEBSOCKET_URL: the base URL of the WebSocket port, which players append `/relay/PORT` to. Required
    behind a proxy that terminates TLS. Default: `wss://` with the public host and the port, if there is a
    certificate."""

    trusted_proxies: tuple[Network, ...]
    """CAUSEWAY_NODE_TRUSTED_PROXIES: the networks, separated by commas, of the proxies in front of the WebSocket port.
    From these, X-Forwarded-For has the player's address, which limits apply to."""

    tls_certificate: str
    """CAUSEWAY_NODE_TLS_CERTIFICATE: the file with the certificate chain (PEM) for the WebSocket port. A changed file
    is loaded within seconds. Empty: the port is served without TLS, for a proxy that adds it."""

    tls_key: str
    """CAUSEWAY_NODE_TLS_KEY: the file with the private key (PEM) of the certificate."""

    capacity: int
    """CAUSEWAY_NODE_CAPACITY: the maximum number of seats of the whole node. Default: 10000."""

    limits: Mapping[str, int]
    """Rate limits of one worker, by their names in RelayConfig; docs/limits.md explains how they work together.

    CAUSEWAY_NODE_CONNECTS_PER_SOURCE: native CONNECTs per second from one source above which each needs a cookie.
    Default: 20.
    CAUSEWAY_NODE_REFUSED_CONNECTS_PER_SOURCE: CONNECTs per second from one source that carry a valid cookie but connect
    no player; the rest is dropped. Default: 500.
    CAUSEWAY_NODE_CONNECTS_PER_SEAT: new CONNECTs per second of one seat, in bursts of up to ten seconds' worth.
    Default: 1.
    CAUSEWAY_NODE_PROBES_PER_SOURCE: probes per second from one source that are answered; four times as many are
    refused, the rest is dropped. Default: 1000.
    CAUSEWAY_NODE_STUN_PER_SOURCE: STUN requests per second from one source that are answered. Default: 20.
    CAUSEWAY_NODE_BAD_TOKENS_PER_SOURCE: edgegap packets per second from one source with unknown user tokens for one
    session token; above it, new players of that session from this source are not admitted. Default: 20.
    CAUSEWAY_NODE_CONNECT_FLOOD_THRESHOLD: native CONNECTs per second from all sources above which each needs a cookie.
    Default: 2000.
    CAUSEWAY_NODE_PING_FLOOD_THRESHOLD: edgegap pings per second with unknown tokens, from all sources, above which none
    of them is answered. Default: 5000.
    CAUSEWAY_NODE_UNAUTHENTICATED_REPLIES: replies per second to all unauthenticated sources together.
    Default: 20000."""

    state_dir: Path
    """CAUSEWAY_NODE_STATE_DIR: the folder for keys and the snapshot. Default: `nodes/NAME` in `CAUSEWAY_STATE_DIR` or,
    if that is not set, in `var`."""

    peer_probe_interval: float
    """CAUSEWAY_NODE_PEER_PROBE_INTERVAL: seconds between two probes of the same other node. Default: 2."""

    packet_path: PacketPathChoice
    """CAUSEWAY_NODE_PACKET_PATH: (or `--packet-path`) `xdp` forwards packets in an eBPF program before they reach a
    socket; `userspace` does not; `auto` chooses XDP where it is available ([packet-paths.md](packet-paths.md)).
    Default: auto."""

    interfaces: tuple[str, ...]
    """CAUSEWAY_NODE_XDP_INTERFACES: the network interfaces of the XDP path, separated by commas. Default: those with a
    default route."""

    drain_timeout: float
    """CAUSEWAY_NODE_DRAIN_TIMEOUT: seconds after SIGTERM during which live sessions may finish. Default: 0."""

    log_level: str
    """CAUSEWAY_NODE_LOG_LEVEL: the lowest level that is logged. Default: INFO."""

    log_format: Format
    """CAUSEWAY_NODE_LOG_FORMAT: `json` or `text`; `auto` writes text to a terminal and JSON elsewhere. Default:
    auto."""

    @property
    def is_standalone(self) -> bool:
        return not self.manager_url

    @property
    def seats_per_worker(self) -> int:
        return -(-self.capacity // len(self.ports))


def read_config(environment: Mapping[str, str]) -> NodeConfig:
    """Raises ConfigError, which names the variable."""
    try:
        return _config(_Reader(environment))
    except SettingError as error:
        raise ConfigError(error.variable, error.reason) from None


def variables() -> dict[str, Variable]:
    """Every variable that a node reads, by its name. For docs/settings.md."""
    read = _Reader({})
    _config(read)
    return read.variables


def _config(read: "_Reader") -> NodeConfig:
    name = read.node_name()
    public_ip, host = read.ip("PUBLIC_IP"), read.text("PUBLIC_HOST")
    bind = read.ip("BIND")
    websocket_port, certificate = read.whole("WEBSOCKET_PORT", 0, 0, MAX_PORT), read.text("TLS_CERTIFICATE")
    control_host = read.text("CONTROL_HOST") or "127.0.0.1"
    control_port = read.whole("CONTROL_PORT", 8900, 1, MAX_PORT)
    config = NodeConfig(
        name=name,
        manager_url=read.url("MANAGER_URL"),
        join_key=read.key("JOIN_KEY"),
        control_key=read.key("CONTROL_KEY"),
        token_keys=read.token_keys(),
        public_ip=public_ip,
        public_ipv6=read.ip("PUBLIC_IPV6"),
        host=host,
        bind=bind,
        ports=read.ports(),
        control_host=control_host,
        control_port=control_port,
        control_url=read.url("CONTROL_URL") or _control_url(control_host, control_port, public_ip),
        websocket_port=websocket_port,
        websocket_bind=read.ip("WEBSOCKET_BIND") or bind,
        websocket_url=read.websocket_url() or _websocket_url(host, websocket_port, certificate),
        trusted_proxies=read.trusted_proxies(),
        tls_certificate=certificate,
        tls_key=read.text("TLS_KEY"),
        capacity=read.whole("CAPACITY", 10_000, 1, MAX_CAPACITY),
        limits={name: read.whole(name.upper(), getattr(DEFAULTS, name), 1, 1_000_000) for name in LIMITS},
        state_dir=read.state_dir(name),
        peer_probe_interval=read.number("PEER_PROBE_INTERVAL", 2, 0.1, 86_400),
        packet_path=cast(PacketPathChoice, read.choice("PACKET_PATH", "auto", PACKET_PATHS)),
        interfaces=tuple(read.words("XDP_INTERFACES")),
        drain_timeout=read.number("DRAIN_TIMEOUT", 0, 0, 86_400),
        log_level=read.choice("LOG_LEVEL", "INFO", LEVELS),
        log_format=cast(Format, read.choice("LOG_FORMAT", "auto", FORMATS)),
    )
    if config.manager_url and not public_ip:
        raise ConfigError(
            PREFIX + "PUBLIC_IP", "is required with a manager: it is the address at which players reach this node"
        )
    _check_families(config)
    if config.websocket_url and not config.websocket_port:
        raise ConfigError(PREFIX + "WEBSOCKET_PORT", f"is required with {PREFIX}WEBSOCKET_URL")
    if bool(config.tls_certificate) != bool(config.tls_key):
        missing = "TLS_KEY" if config.tls_certificate else "TLS_CERTIFICATE"
        raise ConfigError(PREFIX + missing, "is required: a certificate and its key belong together")
    return config


def _check_families(config: NodeConfig) -> None:
    if config.public_ipv6:
        if ":" not in config.public_ipv6:
            raise ConfigError(PREFIX + "PUBLIC_IPV6", "must be an IPv6 address")
        if ":" in config.public_ip or not config.public_ip:
            raise ConfigError(
                PREFIX + "PUBLIC_IPV6",
                f"requires an IPv4 address in {PREFIX}PUBLIC_IP; put the only address of a node there",
            )
        if config.bind and config.bind != "::":
            raise ConfigError(PREFIX + "BIND", "must be empty or :: for a node with an IPv4 and an IPv6 address")
    # A socket bound to "::" accepts both families.
    elif config.public_ip and config.bind not in ("", "::") and (":" in config.bind) != (":" in config.public_ip):
        raise ConfigError(
            PREFIX + "BIND", f"must have the address family of {PREFIX}PUBLIC_IP, or players cannot reach the node"
        )


def _control_url(host: str, port: int, public_ip: str) -> str:
    reached_at = (public_ip or "127.0.0.1") if host in _WILDCARDS else host
    return f"http://[{reached_at}]:{port}" if ":" in reached_at else f"http://{reached_at}:{port}"


def child_environment() -> dict[str, str]:
    """That of a child process: without the node's settings, which contain keys. A child is sent what it needs."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}


def _websocket_url(host: str, port: int, certificate: str) -> str:
    """Empty without a name, for which there is a certificate."""
    if not (host and port and certificate):
        return ""
    return f"wss://{host}" if port == 443 else f"wss://{host}:{port}"


class _Reader(EnvironmentReader):
    """Adds what only a node reads."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        super().__init__(environment, prefix=PREFIX)
        self._state_root = environment.get("CAUSEWAY_STATE_DIR", "").strip() or "var"

    def key(self, name: str) -> str:
        text = self.secret(name)
        if not is_key_text(text):
            self.fail(name, "contains characters that cannot be part of a key")
        return text

    def node_name(self) -> str:
        name = self.text("NAME") or re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname().partition(".")[0])[:50]
        if not _NAME.fullmatch(name):
            self.fail("NAME", "must be 1 to 50 letters, digits, '-' or '_'")
        return name

    def websocket_url(self) -> str:
        text = self.text("WEBSOCKET_URL").rstrip("/")
        if text and not is_websocket_url(text):
            self.fail("WEBSOCKET_URL", "must be wss://HOST or wss://HOST:PORT, without a path")
        return text

    def trusted_proxies(self) -> tuple[Network, ...]:
        networks = tuple(self.networks("TRUSTED_PROXIES"))
        if any(network.prefixlen == 0 for network in networks):
            self.fail(
                "TRUSTED_PROXIES", "must not contain /0, with which players choose whose limits they count against"
            )
        return networks

    def ports(self) -> tuple[PortPair, ...]:
        if listed := self.text("PORTS"):
            pairs = tuple(self._port_pair(item) for item in listed.split(","))
            if len(pairs) > MAX_WORKERS:
                self.fail("PORTS", f"must not list more than {MAX_WORKERS} pairs")
        else:
            workers = self.whole("WORKERS", min(_cores(), MAX_WORKERS), 1, MAX_WORKERS)
            base = self.whole("BASE_PORT", 31_000, 1, MAX_PORT)
            if base + 2 * workers - 1 > MAX_PORT:
                self.fail("BASE_PORT", f"leaves no room for {workers} port pairs below {MAX_PORT + 1}")
            pairs = tuple(PortPair(base + 2 * i, base + 2 * i + 1) for i in range(workers))
        numbers = [number for pair in pairs for number in (pair.server, pair.client)]
        if len(set(numbers)) != len(numbers):
            self.fail("PORTS", "contains a duplicated port")
        return pairs

    def _port_pair(self, item: str) -> PortPair:
        found = re.fullmatch(r"([0-9]{1,5}):([0-9]{1,5})", item.strip())
        if not found or not all(1 <= int(port) <= MAX_PORT for port in found.groups()):
            self.fail("PORTS", f"must be `server:client` pairs of ports from 1 to {MAX_PORT}, separated by commas")
        return PortPair(int(found[1]), int(found[2]))

    def token_keys(self) -> dict[int, bytes]:
        listed = self.key("TOKEN_KEYS")
        return dict(self._token_key(item) for item in listed.split(",")) if listed else {}

    def _token_key(self, item: str) -> tuple[int, bytes]:
        number, _, text = item.strip().partition(":")
        try:
            key = base64.b64decode(text, validate=True)
        except binascii.Error:
            key = b""
        if len(key) != 32 or not number.isascii() or not number.isdigit() or int(number) >= 1 << 32:
            self.fail("TOKEN_KEYS", "must be `id:base64` pairs separated by commas, each key 32 bytes")
        return int(number), key

    def state_dir(self, name: str) -> Path:
        chosen = self.text("STATE_DIR")
        return Path(chosen) if chosen else Path(self._state_root) / "nodes" / name


def is_key_text(text: str) -> bool:
    """Whether it can be sent in an HTTP header."""
    return text.isascii() and text.isprintable()


def _cores() -> int:
    """Cores that this process may run on: fewer than the machine has, in a container with a CPU set."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

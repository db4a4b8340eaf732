"""What a node is told: NodeConfig, read from environment variables named CAUSEWAY_NODE_<FIELD>."""

import base64
import binascii
import ipaddress
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from observability.log_lines import LEVELS, Format

from .core.relay_config import RelayConfig
from .errors import ConfigError

PREFIX = "CAUSEWAY_NODE_"
VERSION = "0.1.0"
MAX_PORT = 65535
MAX_WORKERS = 256  # a connect token names its worker in one byte
LIMITS = (
    "connects_per_source",
    "refused_connects_per_source",
    "connects_per_seat",
    "probes_per_source",
    "stun_per_source",
    "bad_tokens_per_source",
    "flood_connects",
    "flood_pings",
    "unauthenticated_answers",
)
DEFAULTS = RelayConfig()
_NAME = re.compile(r"[A-Za-z0-9_-]{1,50}")
_WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - recognised, not bound to # nosec B104


@dataclass(frozen=True, slots=True)
class PortPair:
    """The two UDP ports of one worker (spec W1): hosts are told the first, everybody else the second."""

    server: int
    client: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """Every setting of a node. Keys are not in its repr, so that they reach no log by way of one."""

    name: str
    """CAUSEWAY_NODE_NAME: what the node is called in the manager. Default: the machine's host name."""

    manager_url: str
    """CAUSEWAY_NODE_MANAGER_URL: the manager's base URL. Empty: the node stands alone."""

    join_key: str = field(repr=False)
    """CAUSEWAY_NODE_JOIN_KEY: lets the node join; not looked at once it has."""

    control_key: str = field(repr=False)
    """CAUSEWAY_NODE_CONTROL_KEY: who presents it controls the node. Read when standing alone; else the manager makes
    it."""

    token_keys: Mapping[int, bytes] = field(repr=False)
    """CAUSEWAY_NODE_TOKEN_KEYS: `id:base64` pairs between commas, 32 bytes each. Read when standing alone; else the
    manager makes them."""

    public_ip: str
    """CAUSEWAY_NODE_PUBLIC_IP: where players reach the node, its IPv4 address where it has both. Needed with a
    manager."""

    public_ipv6: str
    """CAUSEWAY_NODE_PUBLIC_IPV6: its IPv6 address, beside an IPv4 one in the variable above
    ([ipv6.md](ipv6.md))."""

    host: str
    """CAUSEWAY_NODE_HOST: a DNS name for the public addresses."""

    bind: str
    """CAUSEWAY_NODE_BIND: the one local address to serve UDP on. Empty: all, IPv4 and IPv6."""

    ports: tuple[PortPair, ...]
    """One pair of UDP ports for each worker.

    CAUSEWAY_NODE_PORTS: the pairs, as `server:client` between commas; the next two are then not looked at.
    CAUSEWAY_NODE_WORKERS: how many workers. Default: one per core.
    CAUSEWAY_NODE_BASE_PORT: their first port: worker i serves base+2i and base+2i+1. Default: 31000."""

    control_host: str
    """CAUSEWAY_NODE_CONTROL_HOST: the local address of the control API. Default: 127.0.0.1."""

    control_port: int
    """CAUSEWAY_NODE_CONTROL_PORT: its TCP port. Default: 8900."""

    control_url: str
    """CAUSEWAY_NODE_CONTROL_URL: where the manager reaches it. Default: made of control host (or public address, when
    it listens on all addresses) and port."""

    capacity: int
    """CAUSEWAY_NODE_CAPACITY: seats the whole node may hold. Default: 10000."""

    limits: Mapping[str, int]
    """What one worker lets in and answers, by name as in RelayConfig: docs/limits.md says what they mean together.

    CAUSEWAY_NODE_CONNECTS_PER_SOURCE: native CONNECTs a second of one source above which each needs a cookie.
    Default: 20.
    CAUSEWAY_NODE_REFUSED_CONNECTS_PER_SOURCE: of one source, CONNECTs a second with a right cookie that connect no
    player; more are dropped. Default: 500.
    CAUSEWAY_NODE_CONNECTS_PER_SEAT: new CONNECTs a second of one seat, ten seconds' worth at once. Default: 1.
    CAUSEWAY_NODE_PROBES_PER_SOURCE: probes a second of one source that are answered; four times as many are refused,
    the rest is ignored. Default: 1000.
    CAUSEWAY_NODE_STUN_PER_SOURCE: STUN requests a second of one source that are answered. Default: 20.
    CAUSEWAY_NODE_BAD_TOKENS_PER_SOURCE: edgegap packets a second of one source with unknown user tokens for one session
    token; more, and its own new players of that session are not let in. Default: 20.
    CAUSEWAY_NODE_FLOOD_CONNECTS: native CONNECTs a second in all above which each needs a cookie. Default: 2000.
    CAUSEWAY_NODE_FLOOD_PINGS: edgegap pings a second with unknown tokens, in all, above which none of them is answered.
    Default: 5000.
    CAUSEWAY_NODE_UNAUTHENTICATED_ANSWERS: answers a second to unauthenticated sources, in all. Default: 20000."""

    state_dir: Path
    """CAUSEWAY_NODE_STATE_DIR: keeps keys and snapshot. Default: `nodes/NAME` in `CAUSEWAY_STATE_DIR`, else in
    `var`."""

    peer_probe_interval: float
    """CAUSEWAY_NODE_PEER_PROBE_INTERVAL: seconds in which each other node is probed once. Default: 2."""

    packet_path: Literal["auto", "portable", "kernel"]
    """CAUSEWAY_NODE_PACKET_PATH: (or `--packet-path`) `kernel` forwards by an eBPF program before packets reach a
    socket; `portable` does not; `auto` chooses the kernel where it can ([packet-paths.md](packet-paths.md)).
    Default: auto."""

    interfaces: tuple[str, ...]
    """CAUSEWAY_NODE_INTERFACES: network interfaces the kernel path serves, between commas. Default: those with a
    default route."""

    drain_seconds: float
    """CAUSEWAY_NODE_DRAIN_SECONDS: how long live sessions are finished for after SIGTERM. Default: 0."""

    log_level: str
    """CAUSEWAY_NODE_LOG_LEVEL: how much it tells. Default: INFO."""

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
    return _config(_Reader(environment))


def variables() -> dict[str, tuple[str, bool]]:
    """Each variable's name, without prefix: of which kind it is, and whether it is a secret. For docs/settings.md."""
    read = _Reader({})
    _config(read)
    return read.seen


def _config(read: "_Reader") -> NodeConfig:
    name = read.name()
    public_ip = read.ip("PUBLIC_IP")
    control_host = read.text("CONTROL_HOST") or "127.0.0.1"
    control_port = read.whole("CONTROL_PORT", 8900, 1, MAX_PORT)
    config = NodeConfig(
        name=name,
        manager_url=read.url("MANAGER_URL"),
        join_key=read.secret("JOIN_KEY"),
        control_key=read.secret("CONTROL_KEY"),
        token_keys=read.token_keys(),
        public_ip=public_ip,
        public_ipv6=read.ip("PUBLIC_IPV6"),
        host=read.text("HOST"),
        bind=read.ip("BIND"),
        ports=read.ports(),
        control_host=control_host,
        control_port=control_port,
        control_url=read.url("CONTROL_URL") or _control_url(control_host, control_port, public_ip),
        capacity=read.whole("CAPACITY", 10_000, 1, 1_000_000),
        limits={name: read.whole(name.upper(), getattr(DEFAULTS, name), 1, 1_000_000) for name in LIMITS},
        state_dir=read.state_dir(name),
        peer_probe_interval=max(read.seconds("PEER_PROBE_INTERVAL") or 2.0, 0.1),
        packet_path=read.packet_path(),
        interfaces=read.interfaces(),
        drain_seconds=read.seconds("DRAIN_SECONDS"),
        log_level=read.log_level(),
        log_format=read.log_format(),
    )
    if config.manager_url and not public_ip:
        raise ConfigError(PREFIX + "PUBLIC_IP", "is needed with a manager: the address players reach this node at")
    _check_families(config)
    return config


def _check_families(config: NodeConfig) -> None:
    if config.public_ipv6:
        if ":" not in config.public_ipv6:
            raise ConfigError(PREFIX + "PUBLIC_IPV6", "must be an IPv6 address")
        if ":" in config.public_ip or not config.public_ip:
            raise ConfigError(
                PREFIX + "PUBLIC_IPV6", f"stands beside an IPv4 address in {PREFIX}PUBLIC_IP; one is enough"
            )
        if config.bind and config.bind != "::":
            raise ConfigError(PREFIX + "BIND", "serves one family only: leave it empty for a node of both")
    # A socket on "::" serves both.
    elif config.public_ip and config.bind not in ("", "::") and (":" in config.bind) != (":" in config.public_ip):
        raise ConfigError(PREFIX + "BIND", f"is of another family than {PREFIX}PUBLIC_IP: no player would reach it")


def _control_url(host: str, port: int, public_ip: str) -> str:
    reached_at = (public_ip or "127.0.0.1") if host in _WILDCARDS else host
    return f"http://[{reached_at}]:{port}" if ":" in reached_at else f"http://{reached_at}:{port}"


class _Reader:
    """Reads one variable a call, and notes it; what is absent or blank counts as not set."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.seen: dict[str, tuple[str, bool]] = {}

    def text(self, variable: str, kind: str = "text") -> str:
        self.seen.setdefault(variable, (kind, False))
        return self._environment.get(PREFIX + variable, "").strip()

    def secret(self, variable: str) -> str:
        self.seen[variable] = ("text", True)
        if path := self._environment.get(PREFIX + variable + "_FILE", "").strip():
            variable += "_FILE"
            try:
                text = Path(path).read_bytes().decode("latin-1").strip()
            except OSError as error:
                raise ConfigError(PREFIX + variable, f"cannot be read: {error.strerror}") from None
        else:
            text = self.text(variable)
        if not is_key_text(text):
            raise ConfigError(PREFIX + variable, "holds characters that no key has")
        return text

    def name(self) -> str:
        name = self.text("NAME") or re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname().partition(".")[0])[:50]
        if not _NAME.fullmatch(name):
            raise ConfigError(PREFIX + "NAME", "must be 1 to 50 letters, digits, '-' or '_'")
        return name

    def whole(self, variable: str, default: int, least: int, most: int) -> int:
        text = self.text(variable, f"whole number from {least} to {most}")
        return _whole(PREFIX + variable, text, least, most) if text else default

    def seconds(self, variable: str) -> float:
        text = self.text(variable, "number from 0 to 86400") or "0"
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 <= value <= 86_400:  # also false for NaN
            raise ConfigError(PREFIX + variable, f"must be seconds from 0 to 86400, not {text!r}")
        return value

    def ip(self, variable: str) -> str:
        text = self.text(variable, "IP address")
        try:
            return str(ipaddress.ip_address(text)) if text else ""
        except ValueError:
            raise ConfigError(PREFIX + variable, f"must be an IP address, not {text!r}") from None

    def url(self, variable: str) -> str:
        text = self.text(variable, "URL").rstrip("/")
        if text and not _is_http_url(text):
            # The value is not repeated: a URL may hold a password.
            raise ConfigError(PREFIX + variable, "must be an http:// or https:// URL")
        return text

    def ports(self) -> tuple[PortPair, ...]:
        if listed := self.text("PORTS"):
            pairs = tuple(_port_pair(item) for item in listed.split(","))
            if len(pairs) > MAX_WORKERS:
                raise ConfigError(PREFIX + "PORTS", f"must not list more than {MAX_WORKERS} pairs")
        else:
            workers = self.whole("WORKERS", min(_cores(), MAX_WORKERS), 1, MAX_WORKERS)
            base = self.whole("BASE_PORT", 31_000, 1, MAX_PORT)
            if base + 2 * workers - 1 > MAX_PORT:
                raise ConfigError(PREFIX + "BASE_PORT", f"leaves no room for {workers} port pairs below {MAX_PORT + 1}")
            pairs = tuple(PortPair(base + 2 * i, base + 2 * i + 1) for i in range(workers))
        numbers = [number for pair in pairs for number in (pair.server, pair.client)]
        if len(set(numbers)) != len(numbers):
            raise ConfigError(PREFIX + "PORTS", "names a port twice")
        return pairs

    def token_keys(self) -> dict[int, bytes]:
        listed = self.secret("TOKEN_KEYS")
        return dict(_token_key(item) for item in listed.split(",")) if listed else {}

    def state_dir(self, name: str) -> Path:
        if chosen := self.text("STATE_DIR"):
            return Path(chosen)
        return Path(self._environment.get("CAUSEWAY_STATE_DIR", "").strip() or "var") / "nodes" / name

    def packet_path(self) -> Literal["auto", "portable", "kernel"]:
        match self.text("PACKET_PATH", "one of auto, portable, kernel").lower() or "auto":
            case ("auto" | "portable" | "kernel") as path:
                return path
        raise ConfigError(PREFIX + "PACKET_PATH", "must be auto, portable or kernel")

    def interfaces(self) -> tuple[str, ...]:
        return tuple(
            name.strip() for name in self.text("INTERFACES", "list, between commas").split(",") if name.strip()
        )

    def log_level(self) -> str:
        level = self.text("LOG_LEVEL", f"one of {', '.join(LEVELS)}").upper() or "INFO"
        if level not in LEVELS:
            raise ConfigError(PREFIX + "LOG_LEVEL", f"must be DEBUG, INFO, WARNING or ERROR, not {level!r}")
        return level

    def log_format(self) -> Format:
        match self.text("LOG_FORMAT", "one of auto, json, text").lower() or "auto":
            case ("auto" | "json" | "text") as chosen:
                return chosen
        raise ConfigError(PREFIX + "LOG_FORMAT", "must be auto, json or text")


def is_key_text(text: str) -> bool:
    """Whether it can stand in an HTTP header."""
    return text.isascii() and text.isprintable()


def _cores() -> int:
    """Those this process may run on: fewer than the machine has, under a container's CPU set."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _whole(variable: str, text: str, least: int, most: int) -> int:
    value = int(text) if re.fullmatch(r"[0-9]{1,9}", text) else -1
    if not least <= value <= most:
        raise ConfigError(variable, f"must be a whole number from {least} to {most}, not {text!r}")
    return value


def _is_http_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _port_pair(item: str) -> PortPair:
    server, _, client = item.strip().partition(":")
    return PortPair(*(_whole(PREFIX + "PORTS", number, 1, MAX_PORT) for number in (server, client)))


def _token_key(item: str) -> tuple[int, bytes]:
    variable = PREFIX + "TOKEN_KEYS"
    number, _, text = item.strip().partition(":")
    try:
        key = base64.b64decode(text, validate=True)
    except binascii.Error:
        key = b""
    if len(key) != 32 or not number.isascii() or not number.isdigit() or int(number) >= 1 << 32:
        raise ConfigError(variable, "must be `id:base64` pairs between commas, each key 32 bytes")
    return int(number), key

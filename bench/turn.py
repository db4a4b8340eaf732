"""coturn as a rival: the crowd's players each get an allocation, bound by a channel to their host (RFC 8656)."""

import os
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path

from bench.crowd import PLAYER_PORT, Crowd, Flow, Mouth

PORT = 3478
CHANNEL = 0x4000

_COOKIE = 0x2112A442
_ALLOCATE, _CHANNEL_BIND, _SUCCESS = 0x0003, 0x0009, 0x0100
_CHANNEL_NUMBER, _XOR_PEER_ADDRESS, _XOR_RELAYED_ADDRESS, _REQUESTED_TRANSPORT = 0x000C, 0x0012, 0x0016, 0x0019
_UDP = bytes((17, 0, 0, 0))


def is_installed() -> bool:
    return shutil.which("turnserver") is not None


def version() -> str:
    return subprocess.run(["turnserver", "--version"], capture_output=True, text=True).stdout.strip().splitlines()[-1]


@contextmanager
def turn_server(core: int) -> Iterator[int]:
    """Its process id. One relay thread, no authentication (which is not on the data path), loopback peers."""
    with tempfile.TemporaryDirectory() as folder:
        options = (
            f"-n --listening-ip=127.0.0.1 --relay-ip=127.0.0.1 --listening-port={PORT} --no-auth --no-tls --no-dtls"
            f" --no-tcp --no-cli --allow-loopback-peers --relay-threads=1 --min-port=20000 --max-port=39999"
            f" --no-stdout-log --log-file={folder}/log --pidfile={folder}/pid --db={folder}/db"
        )
        command = ["nice", "-n", "-15", "taskset", "-c", str(core), "turnserver", *options.split()]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            time.sleep(1.0)
            yield process.pid
        finally:
            process.terminate()
            process.wait()
            Path(folder, "log").unlink(missing_ok=True)


def join(crowd: Crowd, payload: int) -> list[Flow]:
    """Each player that is no host: by channel data up, by plain UDP to its allocation down."""
    relayed: dict[str, int] = {}
    channels: set[str] = set()
    hosts = {crowd.ip(session, seat): crowd.ip(session, 0) for session, seat in crowd.pairs()}
    with Mouth() as mouth:
        for wanted, done in ((_ALLOCATE, relayed), (_CHANNEL_BIND, channels)):
            while missing := [ip for ip in hosts if ip not in done]:
                for ip in missing[:32]:
                    body = _allocate() if wanted == _ALLOCATE else _channel_bind(hosts[ip])
                    mouth.say(ip, _request(wanted, body), (crowd.relay, PORT))
                for ip, data in mouth.hear():
                    if struct.unpack_from(">H", data)[0] == wanted | _SUCCESS:
                        if wanted == _ALLOCATE:
                            relayed[ip] = _relayed_port(data)
                        else:
                            channels.add(ip)
    head = struct.pack(">HH", CHANNEL, payload)
    flows = []
    for ip, host in hosts.items():
        flows.append(Flow(ip, crowd.relay, PORT, head))
        flows.append(Flow(host, crowd.relay, relayed[ip], b""))
    return flows


def _request(kind: int, attributes: bytes) -> bytes:
    return struct.pack(">HHI", kind, len(attributes), _COOKIE) + os.urandom(12) + attributes


def _allocate() -> bytes:
    return _attribute(_REQUESTED_TRANSPORT, _UDP)


def _channel_bind(host: str) -> bytes:
    peer = struct.pack(">BBHI", 0, 1, PLAYER_PORT ^ _COOKIE >> 16, int(IPv4Address(host)) ^ _COOKIE)
    return _attribute(_CHANNEL_NUMBER, struct.pack(">HH", CHANNEL, 0)) + _attribute(_XOR_PEER_ADDRESS, peer)


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack(">HH", kind, len(value)) + value


def _relayed_port(data: bytes) -> int:
    at = 20
    while at < len(data):
        kind, length = struct.unpack_from(">HH", data, at)
        if kind == _XOR_RELAYED_ADDRESS:
            port: int = struct.unpack_from(">H", data, at + 6)[0] ^ _COOKIE >> 16
            return port
        at += 4 + length + -length % 4
    raise ValueError("no relayed address in the answer")

"""Two machines on a wire: network namespaces with a veth pair, made and taken away by the test. Needs root."""

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest

from relaynode.datapath.xdp import bpf, loader

T = TypeVar("T")

NODE_IPS = ("10.77.0.1", "fd77::1")
PLAYER_IPS = ("10.77.0.2", "fd77::2")

_SIOCETHTOOL, _ETHTOOL_SET_TX_CHECKSUM = 0x8946, 0x17
_CLONE_NEWNET = 0x40000000


@dataclass(frozen=True, slots=True)
class Wire:
    node: str  # names of the namespaces; each has one interface, called wire
    players: str

    def in_node(self, command: list[str]) -> list[str]:
        return ["ip", "netns", "exec", self.node, *command]


def within(namespace: str, act: Callable[[], T]) -> T:
    """`act()` in a thread of its own that lives in `namespace`. Sockets made there stay there."""
    results: list[Any] = []

    def run() -> None:
        try:
            with open(f"/run/netns/{namespace}") as file:
                if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            results.append((act(), None))
        except BaseException as error:
            results.append((None, error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    result, error = results[0]
    if error is not None:
        raise error
    return result


@contextlib.contextmanager
def wire(with_front: bool = True) -> Iterator[Wire]:
    """Skips where namespaces cannot be made; fails there in CI.

    `with_front`: there is a program at the players' end.
    """
    tag = uuid.uuid4().hex[:6]
    made = Wire(f"cw-node-{tag}", f"cw-play-{tag}")
    try:
        _make(made)
    except (OSError, subprocess.CalledProcessError) as error:
        _remove(made)
        assert os.environ.get("CI") != "true", f"namespaces are needed in CI: {error}"
        pytest.skip(f"no network namespaces here: {error}")
    front = None
    try:
        # What XDP sends into a veth is delivered only when there is a program at the other end, too.
        if with_front:
            front = within(made.players, lambda: loader.attach_front([socket.if_nametoindex("wire")]))
        yield made
    except bpf.BpfError as error:
        assert os.environ.get("CI") != "true", f"the XDP path must be tested in CI: {error}"
        pytest.skip(f"no XDP path here: {error.reason}")
    finally:
        if front is not None:
            front.close()
        _remove(made)


def _make(made: Wire) -> None:
    for name in (made.node, made.players):
        _ip(f"netns add {name}")
        _ip(f"-n {name} link set lo up")
    _ip(f"-n {made.node} link add wire type veth peer name wire netns {made.players}")
    for name, ips in ((made.node, NODE_IPS), (made.players, PLAYER_IPS)):
        _ip(f"-n {name} addr add {ips[0]}/24 dev wire")
        _ip(f"-n {name} addr add {ips[1]}/64 dev wire nodad")
        _ip(f"-n {name} link set wire up")
        # As on a real wire: what leaves has its checksums.
        within(name, _send_whole_checksums)


def _send_whole_checksums() -> None:
    value = bytearray(struct.pack("=II", _ETHTOOL_SET_TX_CHECKSUM, 0))
    at = ctypes.addressof(ctypes.c_char.from_buffer(value))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCETHTOOL, struct.pack("=16sQ16x", b"wire", at))


def _remove(made: Wire) -> None:
    for name in (made.node, made.players):
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def _ip(arguments: str) -> None:
    subprocess.run(["ip", *arguments.split()], check=True, capture_output=True)

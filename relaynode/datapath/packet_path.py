"""Which packet path a node uses: XDP where it is available, else userspace; and the reason for the latter."""

import ipaddress
import logging
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..config import PREFIX, NodeConfig, PortPair
from ..errors import ConfigError
from .udp_port import can_batch
from .xdp import bpf, loader

log = logging.getLogger(__name__)

_ROUTES = Path("/proc/net/route")
_ROUTES6 = Path("/proc/net/ipv6_route")
_ANY6 = "0" * 32


@dataclass(slots=True)
class PacketPath:
    """The node's path. `reason`: why it is not the XDP path, or what slows that down; a sentence for the operator."""

    name: Literal["userspace", "xdp"]
    reason: str = ""
    front: loader.Front | None = None

    def withdraw(self, pair: PortPair) -> None:
        """The worker of these ports died: its packets go to its sockets, where they wait for the next one."""
        if self.front is not None:
            self.front.ports.remove(pair.server)
            self.front.ports.remove(pair.client)

    def close(self) -> None:
        if self.front is not None:
            self.front.close()


def choose_packet_path(config: NodeConfig) -> PacketPath:
    """Raises ConfigError when the XDP path is asked for and is not to be had."""
    path = PacketPath("userspace", "the settings say so") if config.packet_path == "userspace" else _try_xdp(config)
    if path.name == "userspace" and config.packet_path == "xdp":
        raise ConfigError(PREFIX + "PACKET_PATH", f"is xdp, but {path.reason}")
    log.info("packet path: %s%s", path.name, f" ({path.reason})" if path.reason else "")
    return path


def _try_xdp(config: NodeConfig) -> PacketPath:
    if not can_batch():
        return PacketPath("userspace", "this system is not 64-bit Linux")
    if not config.interfaces and config.public_ip and ipaddress.ip_address(config.public_ip).is_loopback:
        return PacketPath("userspace", "players come over loopback, which the XDP path does not serve")
    names = config.interfaces or default_interfaces()
    if not names:
        return PacketPath("userspace", f"no interface has a default route; name one in {PREFIX}XDP_INTERFACES")
    try:
        loader.SeatPrograms(max_seats=1).close()  # what each worker will load: all of them can, or none begins to
        front = loader.attach_front(socket.if_nametoindex(name) for name in names)
    except bpf.BpfError as error:
        return PacketPath("userspace", error.reason)
    except OSError as error:
        return PacketPath("userspace", f"interface {', '.join(names)}: {error.strerror}")
    slow = "" if front.is_native else f"slower than it could be: {', '.join(names)} has no XDP in its driver"
    return PacketPath("xdp", slow, front)


def default_interfaces() -> tuple[str, ...]:
    """Those with a default route, of IPv4 or IPv6 (proc_net(5))."""
    found = []
    for line in _lines(_ROUTES)[1:]:
        name, destination = line.split()[:2]
        if destination == "00000000":
            found.append(name)
    for line in _lines(_ROUTES6):
        fields = line.split()
        if fields[0] == _ANY6 and fields[1] == "00" and fields[-1] != "lo":
            found.append(fields[-1])
    return tuple(dict.fromkeys(found))


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if os.access(path, os.R_OK) else []

"""An Internet in network namespaces, with servers, routers of any kind of NAT, and hosts behind them.

    with lab.open_lab() as internet:
        relay = internet.server("relay")
        home = internet.router("home", kinds.PORT_RESTRICTED)
        alice = home.host("alice")
        alice.namespace.call(lambda: ...)

Nothing leaves the machine. The addresses outside are no documentation prefixes, because miniupnpd and Python's
ipaddress count those as private: 44.128.0.0/16 was the test network of AMPRNet, and 3ffe::/16 that of the 6bone. All
homes have the same private addresses, as real ones do.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path

from natlab import kinds
from natlab.kinds import WAN, Mapping, NatKind
from natlab.namespaces import Namespace, reaper, remove_stale
from natlab.port_mapping import PortMapper, Protocols
from natlab.wire import Line, Wire

HOME = "192.168.1.0/24"
CARRIER = "100.64.0.0/24"
PROGRAMS = {"ip": "iproute2", "nft": "nftables", "nsenter": "util-linux", "conntrack": "conntrack"}
LIFETIME = 300  # seconds of an unused mapping
_BRIDGE = "lan"


@dataclass
class Host:
    name: str
    namespace: Namespace
    addresses: list[str]  # IPv4 first, if it has both families

    @property
    def address(self) -> str:
        return self.addresses[0]


@dataclass
class Router:
    """A network with a router, on the Internet or behind another router."""

    lab: "Lab"
    name: str
    namespace: Namespace
    kind: NatKind | None
    address: str  # the outer IPv4 address
    inside: IPv4Network
    ipv6: str  # the first four groups of the inner network's addresses; "": there are none
    count: int = field(default=0, repr=False)  # of what is connected to it

    @property
    def inner_address(self) -> str:
        return str(self.inside[1])

    def host(self, name: str) -> Host:
        """A host behind the router, with an IPv4 address if the router translates, and an IPv6 address if it has
        some."""
        namespace = self.lab.namespace(name)
        ipv4, ipv6 = self.connect(namespace, "eth0")
        return Host(name, namespace, [it for it in (ipv4, ipv6) if it])

    def connect(self, namespace: Namespace, device: str) -> tuple[str, str]:
        """Joins a namespace to the inner network; its new addresses, "" for a family that there is none of."""
        self.count += 1
        port = f"port{self.count}"
        self.namespace.ip(
            f"link add {port} type veth peer name {device} netns {namespace.name}",
            f"link set {port} master {_BRIDGE} up",
        )
        ipv4 = str(self.inside[9 + self.count]) if self.kind else ""
        ipv6 = f"{self.ipv6}::{9 + self.count:x}" if self.ipv6 else ""
        commands = [f"link set {device} up"]
        if ipv4:
            commands += [
                f"addr add {ipv4}/{self.inside.prefixlen} dev {device}",
                f"route add default via {self.inner_address}",
            ]
        if ipv6:
            commands += [f"addr add {ipv6}/64 dev {device} nodad", f"route add ::/0 via {self.ipv6}::1"]
        namespace.ip(*commands)
        return ipv4, ipv6

    def flush(self) -> None:
        """Forget all mappings, as a router does that restarts."""
        if self.kind is not None:
            self.namespace.nft(kinds.flush())
            self.namespace.call(_flush_conntrack)


class Lab:
    """Use `open_lab`."""

    def __init__(self, line: Line) -> None:
        self.wire = Wire(line)
        self._sites = 0
        self._namespaces: dict[str, Namespace] = {}
        self._routers: dict[str, Router] = {}
        self._mappers: dict[str, PortMapper] = {}

    def server(self, name: str) -> Host:
        """A host on the Internet, with addresses of both families."""
        namespace = self.namespace(name)
        ipv4, ipv6 = self._attach(name, namespace)
        return Host(name, namespace, [ipv4, f"{ipv6}::1"])

    def router(
        self,
        name: str,
        kind: NatKind | None,
        *,
        behind: Router | None = None,
        inside: str = HOME,
        ipv6: bool = False,
        hairpin: bool = False,
        lifetime: int = LIFETIME,
        blocks_udp: bool = False,
        port_mapping: Protocols | None = None,
    ) -> Router:
        """`kind`: None for a network without IPv4. `ipv6`: it has IPv6, not translated, but only answers come in; not
        `behind` another router. `lifetime`: seconds of an unused mapping. `port_mapping`: by which protocols hosts open
        ports, with kinds that do not map independently of the endpoint. Raises ValueError if these do not fit."""
        if ipv6 and behind is not None:
            raise ValueError("a router behind another one has no IPv6")
        if port_mapping and (kind is None or kind.mapping is Mapping.ENDPOINT_INDEPENDENT):
            raise ValueError("no port mapping with this kind")
        namespace = self.namespace(name)
        namespace.set_options(
            {
                "net.ipv4.ip_forward": 1,
                "net.ipv6.conf.all.forwarding": 1,
                "net.ipv4.conf.all.send_redirects": 0,
                "net.ipv4.conf.default.send_redirects": 0,
                "net.bridge.bridge-nf-call-iptables": 0,
                "net.bridge.bridge-nf-call-ip6tables": 0,
            }
        )
        if behind is None:
            address, prefix = self._attach(name, namespace)
        else:
            (address, _), prefix = behind.connect(namespace, WAN), ""
        made = Router(self, name, namespace, kind, address, IPv4Network(inside), f"{prefix}:1" if ipv6 else "")
        inner = [f"link add {_BRIDGE} type bridge", f"link set {_BRIDGE} up"]
        if kind:
            inner.append(f"addr add {made.inner_address}/{made.inside.prefixlen} dev {_BRIDGE}")
        if ipv6:
            inner.append(f"addr add {made.ipv6}::1/64 dev {_BRIDGE} nodad")
        namespace.ip(*inner)
        rules = kinds.firewall(blocks_udp=blocks_udp)
        if kind:
            rules += kinds.translation(kind, address, lifetime=lifetime, hairpin=hairpin)
        namespace.nft(rules)
        timeouts = dict.fromkeys(("udp_timeout", "udp_timeout_stream"), lifetime)
        namespace.set_options({f"net.netfilter.nf_conntrack_{name}": value for name, value in timeouts.items()})
        if port_mapping:
            self._mappers[name] = PortMapper(namespace, _BRIDGE, port_mapping)
        self._routers[name] = made
        return made

    def flush(self) -> None:
        """Every router forgets its mappings."""
        for router in self._routers.values():
            router.flush()

    def remove(self, *names: str) -> None:
        """Servers, routers and hosts, with the processes inside them; what is behind a router has to be named, too."""
        for name in names:
            self.wire.detach(name)
            if name in self._mappers:
                self._mappers.pop(name).close()
            self._namespaces.pop(name).remove()
            self._routers.pop(name, None)

    @contextlib.contextmanager
    def scene(self) -> Iterator[None]:
        """What is made while it is entered is removed at the end."""
        before = set(self._namespaces)
        try:
            yield
        finally:
            self.remove(*(set(self._namespaces) - before))

    def close(self) -> None:
        self.remove(*self._namespaces)
        self.wire.close()

    def namespace(self, name: str) -> Namespace:
        """A new one. Raises ValueError if the name is in use."""
        if name in self._namespaces:
            raise ValueError(f"there is a {name} already")
        made = self._namespaces[name] = Namespace(name)
        return made

    def _attach(self, name: str, namespace: Namespace) -> tuple[str, str]:
        """Its IPv4 address, and the first three groups of its IPv6 addresses."""
        self._sites = self._sites % 254 + 1
        ipv4, ipv6 = f"44.128.{self._sites}.1", f"3ffe:0:{self._sites:x}"
        self.wire.attach(name, WAN, [f"44.128.{self._sites}.0/24", f"{ipv6}::/48"], namespace)
        namespace.ip(
            f"addr add {ipv4}/24 dev {WAN}",
            f"addr add {ipv6}::1/64 dev {WAN} nodad",
            f"link set {WAN} up",
            f"route add default dev {WAN}",
            f"route add ::/0 dev {WAN}",
        )
        return ipv4, ipv6


def missing() -> str:
    """Why this machine cannot have a lab; "" if it can."""
    if os.geteuid():
        return "the NAT lab needs root, for network namespaces"
    if not Path("/dev/net/tun").exists():
        return "the NAT lab needs /dev/net/tun"
    packages = [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
    return f"the NAT lab needs the packages {', '.join(packages)}" if packages else ""


@contextlib.contextmanager
def open_lab(line: Line | None = None) -> Iterator[Lab]:
    """`line`: that between all sites. Raises OSError if this machine cannot have a lab."""
    if reason := missing():
        raise OSError(reason)
    remove_stale()
    with reaper():
        lab = Lab(line or Line())
        try:
            yield lab
        finally:
            lab.close()


def _flush_conntrack() -> None:
    subprocess.run(["conntrack", "-F"], check=True, capture_output=True)

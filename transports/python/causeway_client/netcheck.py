"""Checks what the network of this machine permits: which nodes are reachable, what kind of NAT there is, and with which
players a direct path can be expected.

    python -m causeway_client.netcheck HOST:PORT [HOST:PORT ...] [--json]

Give the address of every node that the game uses (`host` and `udp_port` of the beacons in the REST API). Two nodes with
different addresses are needed to recognise a NAT whose mapping depends on the destination's address. Give a host name
where there is one: only with a name is the WebSocket tried that replaces UDP in networks that block it.
"""

import argparse
import asyncio
import json
import math
import os
import socket
import ssl
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from .drivers import happy_eyeballs, udp_sockets, websocket_driver
from .drivers.router_mapping import RouterMapping
from .protocol import packets
from .protocol.errors import DecodeError
from .protocol.paths import stun
from .protocol.paths.nat import Observation, classify
from .protocol.paths.rendezvous import NatClass

REPEATS = (0.0, 0.3, 0.7)  # seconds at which each request is sent
WAIT = 1.5  # seconds for answers
HAIRPIN_WAIT = 0.5
MAPPING_WAIT = 3.5
MAX_CLASSIFIED_BY = 4  # nodes that `nat_class` asks
FAMILY_NAMES = {socket.AF_INET: "ipv4", socket.AF_INET6: "ipv6"}

OPENS_WITH = {
    NatClass.ENDPOINT_INDEPENDENT: "players behind most NATs, except those that assign a random port to each peer",
    NatClass.ADDRESS_DEPENDENT: "players without a NAT, or behind one that accepts any port of a known peer",
    NatClass.PORT_DEPENDENT: "players behind NATs that keep one mapping; the next ports of this NAT can be predicted",
    NatClass.RANDOM_PORTS: "players without a NAT, or behind one that accepts any peer; others need many probes",
    NatClass.UNKNOWN: "unknown: give the addresses of at least two ports or nodes",
    NatClass.UDP_BLOCKED: "no player: packets go over the relay",
}


@dataclass
class NodeAnswer:
    """How one address of a node answered. Times are in milliseconds, None if it did not answer."""

    address: str
    rtt_ms: float | None = None
    seen_as: str | None = None


@dataclass
class FamilyReport:
    """What was found for one address family."""

    has_route: bool
    host: str | None = None
    nat_class: str = "unknown"
    port_step: int = 0
    is_translated: bool | None = None
    hairpin: bool | None = None
    nodes: list[NodeAnswer] = field(default_factory=list)


@dataclass
class Report:
    """`port_mapping`: "pcp", "nat_pmp", "upnp" or None; `mapped`: the address that the router forwards. `websocket`:
    the URL of the first WebSocket over which a node answered; `websocket_error`: why none did. Both None: none was
    tried."""

    ipv4: FamilyReport
    ipv6: FamilyReport
    port_mapping: str | None
    mapped: str | None
    udp_works: bool
    websocket: str | None
    websocket_error: str | None
    direct_with: str
    advice: list[str]


class _Listener(asyncio.DatagramProtocol):
    """Collects what arrives, with the time."""

    def __init__(self) -> None:
        self.arrived: list[tuple[float, bytes, tuple[Any, ...]]] = []

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self.arrived.append((time.monotonic(), data, addr))


async def check(
    hosts: Sequence[tuple[str, int]], *, websocket_url: str | None = None, ssl_context: ssl.SSLContext | None = None
) -> Report:
    """Runs all checks; takes about five seconds, and longer where TLS is blocked as well. `hosts`: (host, UDP port)
    of nodes. `websocket_url`: instead of port 443 of the host names. Raises OSError if a name does not resolve."""
    addresses: list[tuple[Any, ...]] = []
    for host, port in hosts:
        addresses += await asyncio.to_thread(happy_eyeballs.resolve, host, port)
    found = await asyncio.gather(*(_check_family(family, addresses) for family in FAMILY_NAMES))
    ipv4, ipv6 = (report for report, _ in found)
    protocol, mapped = await _map_port(ipv4, found[0][1])
    udp_works = any(answer.rtt_ms is not None for report in (ipv4, ipv6) for answer in report.nodes)
    urls = [websocket_url] if websocket_url else [websocket_driver.url_for(host, port) for host, port in hosts]
    websocket, error = await _try_websockets([url for url in urls if url], ssl_context)
    best = NatClass[ipv4.nat_class.upper()] if udp_works else NatClass.UDP_BLOCKED
    advice = _advice(ipv4, ipv6, protocol, udp_works=udp_works, websocket=websocket)
    return Report(ipv4, ipv6, protocol, mapped, udp_works, websocket, error, OPENS_WITH[best], advice)


async def nat_class(hosts: Sequence[tuple[str, int]]) -> str:
    """The class of this machine's NAT, by the name that the attribute `nat_class` of a ticket has: that of IPv4, or of
    IPv6 where no node answers over IPv4; "udp_blocked" if none answers. `hosts`: (address, UDP port) of nodes, of which
    the first few are asked. Takes 1.5 s for each family, and sends STUN requests and PROBEs only."""
    addresses: list[tuple[Any, ...]] = [(host, port) for host, port in hosts[:MAX_CLASSIFIED_BY]]
    for family in FAMILY_NAMES:
        report, _ = await _check_family(family, addresses, with_hairpin=False)
        if any(answer.rtt_ms is not None or answer.seen_as is not None for answer in report.nodes):
            return report.nat_class
    return NatClass.UDP_BLOCKED.name.lower()


async def _check_family(
    family: int, addresses: Sequence[tuple[Any, ...]], *, with_hairpin: bool = True
) -> tuple[FamilyReport, int]:
    """The report, and the port of the socket that was examined (0: none)."""
    ours = [address for address in addresses if udp_sockets.family_of(address[0]) == family]
    try:
        udp = udp_sockets.open_socket(family)
    except OSError:
        return FamilyReport(has_route=False), 0
    host = udp_sockets.host_address(udp, ours[0] if ours else None)
    if host is None:
        udp.close()
        return FamilyReport(has_route=False), 0
    loop = asyncio.get_running_loop()
    transport, listener = await loop.create_datagram_endpoint(_Listener, sock=udp)
    report = FamilyReport(has_route=True, host=f"{host[0]}", nodes=[NodeAnswer(_text(it)) for it in ours])
    try:
        observations = await _ask(transport, listener, ours, report)
        found, report.port_step = classify(observations)
        report.nat_class = found.name.lower()
        if observations:
            report.is_translated = observations[0].ip != host[0]
            own = (observations[0].ip, observations[0].port)
            if with_hairpin and report.is_translated and found is NatClass.ENDPOINT_INDEPENDENT:
                report.hairpin = await _is_hairpinning(family, listener, own)
    finally:
        transport.close()
    return report, host[1]


async def _ask(
    transport: asyncio.DatagramTransport,
    listener: _Listener,
    addresses: Sequence[tuple[Any, ...]],
    report: FamilyReport,
) -> list[Observation]:
    """Sends PROBEs to the nodes, and STUN requests to both ports of each."""
    targets = dict.fromkeys((host, near) for host, port, *_ in addresses for near in (port, port - 1, port + 1))
    requests = {os.urandom(stun.TRANSACTION_SIZE): target for target in targets}
    started = time.monotonic()
    probes: dict[bytes, tuple[int, float]] = {}  # nonce -> (which address, when sent)
    for delay in REPEATS:
        await asyncio.sleep(max(0.0, started + delay - time.monotonic()))
        for index, address in enumerate(addresses):
            nonce = os.urandom(16)
            probes[nonce] = index, time.monotonic()
            transport.sendto(packets.Probe(nonce).encode(), address)
        for transaction, target in requests.items():
            transport.sendto(stun.encode_request(transaction), target)
    await asyncio.sleep(max(0.0, started + WAIT - time.monotonic()))
    observations: dict[bytes, Observation] = {}
    for at, data, _ in listener.arrived:
        try:
            if stun.is_stun(data):
                transaction, ip, port = stun.decode_response(data)
                if transaction in requests:
                    observations.setdefault(transaction, Observation(*requests[transaction], ip, port))
            else:
                index, sent_at = probes.get(packets.decode_probe_reply(data).nonce, (-1, 0.0))
                rtt_ms = round((at - sent_at) * 1000, 3)
                if index >= 0 and rtt_ms < (report.nodes[index].rtt_ms or math.inf):
                    report.nodes[index].rtt_ms = rtt_ms
        except DecodeError:
            continue
    in_order = [observations[transaction] for transaction in requests if transaction in observations]
    for answer, address in zip(report.nodes, addresses, strict=True):
        seen = next((it for it in in_order if (it.server_ip, it.server_port) == address[:2]), None)
        answer.seen_as = f"{seen.ip}:{seen.port}" if seen else None
    return in_order


async def _is_hairpinning(family: int, listener: _Listener, own: tuple[str, int]) -> bool:
    """Whether a second socket reaches the first one at its outer address."""
    token = os.urandom(24)
    with udp_sockets.open_socket(family) as second:
        second.sendto(token, own)
        until = time.monotonic() + HAIRPIN_WAIT
        while time.monotonic() < until:
            if any(data == token for _, data, _ in listener.arrived):
                return True
            await asyncio.sleep(0.02)
    return False


async def _try_websockets(urls: Sequence[str], context: ssl.SSLContext | None) -> tuple[str | None, str | None]:
    """(the first URL over which a node answered a PROBE, why none did)."""
    if urls and not websocket_driver.is_available():
        return None, "the package websockets is not installed"
    failure = None
    for url in urls:
        try:
            answer = await websocket_driver.ask(url, context, packets.Probe(os.urandom(16)).encode(), WAIT)
            packets.decode_probe_reply(answer)
        except OSError as error:
            failure = str(error)
        except DecodeError:
            failure = f"WebSocket to {url}: the answer is none of a node"
        else:
            return url, None
    return None, failure


async def _map_port(report: FamilyReport, port: int) -> tuple[str | None, str | None]:
    """(protocol, address) of a port mapping that the router granted, and that is given back at once."""
    if report.host is None:
        return None, None
    granted: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()

    def on_changed(mapped: tuple[str, int] | None, protocol: str) -> None:
        if mapped is not None and not granted.done():
            granted.set_result((protocol, _text(mapped)))

    mapping = RouterMapping((report.host, port), on_changed)
    try:
        await mapping.start()
        return await asyncio.wait_for(granted, MAPPING_WAIT)
    except TimeoutError:
        return None, None
    finally:
        mapping.end()


def _advice(
    ipv4: FamilyReport, ipv6: FamilyReport, protocol: str | None, *, udp_works: bool, websocket: str | None
) -> list[str]:
    """What a player or an operator can change."""
    if not udp_works:
        text = "No node answered over UDP. Permit outgoing UDP to the nodes in the firewall, or use another network."
        return [f"{text} Until then, native clients play over a WebSocket to {websocket}." if websocket else text]
    advice = []
    if ipv4.nat_class in ("port_dependent", "random_ports", "address_dependent"):
        text = "The NAT assigns another port for each destination, so many players are only reached over the relay."
        advice.append(f"{text} Choose an endpoint-independent (full cone) NAT in the router.")
    if protocol is None and ipv4.is_translated:
        advice.append("The router maps no ports. Enable PCP, NAT-PMP or UPnP in it.")
    if not ipv6.has_route:
        advice.append("There is no IPv6. With it, most players reach each other without a NAT.")
    if ipv4.hairpin is False:
        advice.append("The NAT has no hairpinning: players behind it use their local addresses.")
    return advice


def as_text(report: Report) -> str:
    lines = []
    for name, found in (("IPv4", report.ipv4), ("IPv6", report.ipv6)):
        if not found.has_route:
            lines.append(f"{name}: no route")
            continue
        translated = {True: "behind a NAT", False: "no NAT", None: "no answer"}[found.is_translated]
        step = f", port step {found.port_step}" if found.port_step else ""
        lines.append(f"{name}: {found.host}, {translated}, mapping {found.nat_class.replace('_', '-')}{step}")
        for node in found.nodes:
            rtt = "no answer" if node.rtt_ms is None else f"{node.rtt_ms:.1f} ms, sees {node.seen_as}"
            lines.append(f"  node {node.address}: {rtt}")
    lines.append(f"Port mapping: {report.port_mapping or 'none'}{f' ({report.mapped})' if report.mapped else ''}")
    if report.websocket or report.websocket_error:
        lines.append(f"WebSocket: {report.websocket or report.websocket_error}")
    lines.append(f"Direct paths: {report.direct_with}")
    return "\n".join([*lines, *(f"- {advice}" for advice in report.advice)])


def _text(address: tuple[Any, ...]) -> str:
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"


def _host_and_port(text: str) -> tuple[str, int]:
    host, separator, port = text.rpartition(":")
    if not separator or not port.isdigit() or not 0 < int(port) < 65_536:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


def main(arguments: Sequence[str] | None = None) -> int:
    """0: direct paths can be expected; 1: UDP does not reach any node; 2: wrong arguments or names."""
    parser = argparse.ArgumentParser(
        prog="python -m causeway_client.netcheck",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("nodes", nargs="+", type=_host_and_port, metavar="HOST:PORT")
    parser.add_argument("--websocket", metavar="URL", help="try this WebSocket instead of port 443 of each host name")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    options = parser.parse_args(arguments)
    try:
        report = asyncio.run(check(options.nodes, websocket_url=options.websocket))
    except OSError as error:
        print(f"netcheck: {error}", file=sys.stderr)
        return 2
    print(json.dumps(asdict(report), indent=2) if options.json else as_text(report))
    return 0 if report.udp_works else 1


if __name__ == "__main__":
    sys.exit(main())

"""The nodes: asked over their control API and measured on their UDP ports, all of them at the same time."""

import asyncio
import math
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby

from django.conf import settings
from django.db.models import Prefetch
from django.utils import timezone

from causeway_client.protocol.probing import Measurement
from relaymgr.nodes.address_families import IPV4, IPV6, family_of
from relaymgr.nodes.control_client import Heard, NodeRefused, Probe, Silent, health_of, telemetry_of
from relaymgr.nodes.incidents import incidents_recent
from relaymgr.nodes.models import IncidentKind, NodeState, RelayNode
from relaymgr.nodes.selectors import placement_nodes
from relaymgr.telemetry.reports import Report, parse_report
from web.background_loop import wait_for

from .findings import Finding, Of
from .udp_probe import Port, measure_all

ANSWER_WITHIN_S, RESOLVE_WITHIN_S = 3.0, 3.0
CLOCK_WARNING_S = 1.0
FULL_WARNING = 0.9  # of the seats
BUSY = 0.7  # of a core
FLEET = Of("fleet")


@dataclass(frozen=True)
class Examined:
    """A node as its row has it, what it answered, and what came of writing to its ports."""

    node: RelayNode
    telemetry: Heard | Silent
    health: Heard | Silent
    ports: dict[Port, Measurement | OSError]
    addresses: list[str] | None  # what its DNS name says; None: it has no name


def look() -> Iterator[Finding]:
    recent = Prefetch("incidents", incidents_recent(), to_attr="recent_incidents")
    nodes = list(placement_nodes().prefetch_related("token_keys", recent))
    yield from fleet(nodes)
    examined = wait_for(_examine(nodes))
    versions = {node.version for node in nodes if node.state != NodeState.LOST}
    for each in examined:
        yield from _node(each, versions)


async def _examine(nodes: Sequence[RelayNode]) -> list[Examined]:
    asks = [Probe(node.pk, node.control_url, node.control_key, node.last_event) for node in nodes]
    telemetry, health, ports, addresses = await asyncio.gather(
        telemetry_of(asks, ANSWER_WITHIN_S),
        health_of(asks, ANSWER_WITHIN_S),
        measure_all(port for node in nodes for port in _ports(node)),
        asyncio.gather(*(_resolve(node.host) for node in nodes)),
    )
    return [
        Examined(node, told, health_told, {port: ports[port] for port in _ports(node)}, found)
        for node, told, health_told, found in zip(nodes, telemetry, health, addresses, strict=True)
    ]


def _ports(node: RelayNode) -> list[Port]:
    """Of workers that are there; one that is gone keeps its row without room."""
    workers = [worker for worker in node.workers.all() if worker.capacity]
    ports = [port for worker in workers for port in (worker.server_port, worker.client_port)]
    return [(address, port) for address in node.addresses.values() for port in ports]


async def _resolve(host: str) -> list[str] | None:
    if not host:
        return None
    try:
        async with asyncio.timeout(RESOLVE_WITHIN_S):
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        return []
    return sorted({str(address[0]) for *_, address in found})


# The fleet


def fleet(nodes: Sequence[RelayNode]) -> Iterator[Finding]:
    if not nodes:
        yield FLEET.warning(
            "nodes", "no node has joined", "Make a key with `relayctl join-key LOCATION`, start a node with it."
        )
        return
    taking = [node for node in nodes if node.takes_sessions]
    if not taking:
        todo = "Start nodes, or `relayctl undrain` some: no session can be made."
        yield FLEET.problem("nodes", f"none of {len(nodes)} nodes takes sessions", todo)
        return
    yield FLEET.ok("nodes", f"{len(taking)} of {len(nodes)} nodes take sessions")
    workers = [worker for node in taking for worker in node.workers.all()]
    free, seats = sum(worker.free_seats for worker in workers), sum(worker.capacity for worker in workers)
    text = f"{free} of {seats} seats are free"
    if free == 0:
        yield FLEET.problem("seats", text, "Add nodes: no session can be made.")
    elif free < (1 - FULL_WARNING) * seats:
        yield FLEET.warning("seats", text, "Add nodes, or raise CAUSEWAY_NODE_CAPACITY where cores are idle.")
    else:
        yield FLEET.ok("seats", text)


# A node


def _node(each: Examined, versions: set[str]) -> Iterator[Finding]:
    of = Of("node", each.node.name)
    yield state(each.node)
    report = None
    if isinstance(each.telemetry, Silent):
        yield _silence(of, each.node, each.telemetry)
    else:
        report = _report(each.telemetry)
        yield _control(of, each.telemetry, report)
    if report and isinstance(each.telemetry, Heard):
        middle = (each.telemetry.sent_at + each.telemetry.answered_at) / 2
        yield clock(of, report.time - middle)
        yield packet_path(of, report)
        yield version(of, report.version, versions)
    yield from _link(of, each.health)
    yield from udp(of, each.node, each.ports)
    yield from _name(of, each.node, each.addresses)
    yield from _incidents(of, each.node)
    yield seats(of, each.node)
    yield token_keys(of, each.node)


def state(node: RelayNode) -> Finding:
    of = Of("node", node.name)
    if node.state == NodeState.LOST:
        todo = f"Look at its machine and log, start it again; or forget it: relayctl remove {node}."
        return of.problem("state", "lost: it answers no probes", todo)
    if node.state == NodeState.SUSPECT:
        return of.problem(
            "state", f"suspect: it missed {node.missed_probes} probes", "Look at its machine and the way to it."
        )
    if node.state == NodeState.JOINING:
        todo = "Is the worker running? It is ready once it answers a probe at its control URL."
        return of.warning("state", "joining: it has not answered a probe yet", todo)
    if not node.takes_sessions:
        todo = f"When its work is done: relayctl undrain {node}, or stop it and relayctl remove {node}."
        return of.warning("state", "draining: it takes no new sessions", todo)
    return of.ok("state", "ready")


def _silence(of: Of, node: RelayNode, silent: Silent) -> Finding:
    if isinstance(silent.error, NodeRefused):
        todo = (
            "Its keys are of another manager or an earlier join: empty its state folder and let it join with a new key."
        )
        return of.problem("control API", f"{node.control_url} refuses our key ({silent.error.code})", todo)
    todo = (
        "Does it run? Is CAUSEWAY_NODE_CONTROL_URL what the manager can reach, and the port open to the manager alone?"
    )
    return of.problem(
        "control API", f"{node.control_url} gave no answer within {ANSWER_WITHIN_S:.0f} s ({silent.error})", todo
    )


def _report(heard: Heard) -> Report | None:
    try:
        return parse_report(heard.document)
    except ValueError:
        return None


def _control(of: Of, heard: Heard, report: Report | None) -> Finding:
    took = f"{1000 * (heard.answered_at - heard.sent_at):.0f} ms"
    if report is None:
        todo = "Is something else at that address? Else run the same version there as here."
        return of.problem("control API", f"answers in {took} what makes no sense", todo)
    return of.ok("control API", f"answers our key in {took}")


def clock(of: Of, offset_s: float) -> Finding:
    text = f"{offset_s:+.3f} s from this machine's"
    if abs(offset_s) < CLOCK_WARNING_S:
        return of.ok("clock", text)
    todo = "Synchronise it (NTP): tokens expire by it, and a node that is off by more is refused."
    return (of.problem if abs(offset_s) > settings.NODE_MAX_CLOCK_SKEW else of.warning)("clock", text, todo)


def packet_path(of: Of, report: Report) -> Finding:
    text = report.packet_path + (f": {report.packet_path_reason}" if report.packet_path_reason else "")
    if report.packet_path == "userspace" and report.cpu > BUSY:
        todo = "The XDP path costs a fraction: see docs/packet-paths.md for what it needs."
        return of.warning("packet path", f"{text}; its busiest worker takes {report.cpu:.0%} of a core", todo)
    return of.ok("packet path", text)


def version(of: Of, own: str, versions: set[str]) -> Finding:
    ours = settings.SPECTACULAR_SETTINGS["VERSION"]
    if own == ours:
        return of.ok("version", own)
    others = f"; the fleet runs {', '.join(sorted(versions))}" if len(versions) > 1 else ""
    return of.warning(
        "version", f"{own or 'unknown'}, the manager is {ours}{others}", "Finish the upgrade, or the way back."
    )


def _link(of: Of, health: Heard | Silent) -> Iterator[Finding]:
    """The way back, from the node to the manager. A node that is silent altogether was told of before."""
    link = health.document.get("manager") if isinstance(health, Heard) else "connected"
    if link == "unreachable":
        todo = "From the node, try CAUSEWAY_NODE_MANAGER_URL: name, route, firewall, certificate, ALLOWED_HOSTS."
        yield of.problem("link", "it cannot reach the manager", todo)
    elif link == "refused":
        todo = "Empty its state folder and let it join with a new key: relayctl join-key LOCATION."
        yield of.problem("link", "the manager refuses its key", todo)
    elif link == "duplicate":
        todo = "Stop one of the two processes; a copied machine needs an empty state folder and a join key."
        yield of.problem("link", "the process that answers there is a second one of this node", todo)
    elif link == "standalone":
        yield of.problem("link", "it stands alone, with no manager", "Set CAUSEWAY_NODE_MANAGER_URL where it runs.")


def udp(of: Of, node: RelayNode, ports: dict[Port, Measurement | OSError]) -> Iterator[Finding]:
    """Ports that fare alike are told of together."""

    def fate(port: Port) -> tuple[str, str]:
        return port[0], _fate(ports[port])

    for (address, text), alike in groupby(sorted(ports, key=fate), key=fate):
        numbers = ", ".join(str(port) for _, port in sorted(alike))
        told = f"{address}, ports {numbers}: {text}"
        if text == REACHED:
            trips = [
                found.rtt_ms
                for (reached, _), found in ports.items()
                if reached == address and isinstance(found, Measurement) and found.rtt_ms is not None
            ]
            yield of.ok("udp", f"{told} in {min(trips):.1f} ms")
        elif text == LOSSY:
            todo = "Look at the line, and at the MTU: every other probe has 1,000 bytes."
            yield of.warning("udp", told, todo)
        else:
            todo = (
                "Open these UDP ports to everybody in the firewall and the provider's rules; players come to "
                f"{VARIABLES[family_of(address)]}. If players do reach it, the way from the manager alone is closed."
            )
            yield of.problem("udp", told, todo)


# Whence players come by the address: a node of both families has its IPv6 address in the second.
VARIABLES = {IPV4: "CAUSEWAY_NODE_PUBLIC_IP", IPV6: "CAUSEWAY_NODE_PUBLIC_IPV6 or CAUSEWAY_NODE_PUBLIC_IP"}
REACHED, LOSSY, UNANSWERED = "answers", "answers, and loses packets", "no answer"


def _fate(found: Measurement | OSError) -> str:
    if isinstance(found, OSError):
        return found.strerror or type(found).__name__
    if found.rtt_ms is None:
        return UNANSWERED
    return REACHED if math.isclose(found.loss, 0.0) else LOSSY


def _name(of: Of, node: RelayNode, addresses: list[str] | None) -> Iterator[Finding]:
    if addresses is None:
        return
    expected = sorted(node.addresses.values())
    if set(expected) <= set(addresses):
        yield of.ok("name", f"{node.host} is {', '.join(expected)}")
        return
    text = (
        f"{node.host} is {', '.join(addresses)}, not {', '.join(expected)}"
        if addresses
        else f"{node.host} has no address"
    )
    yield of.problem("name", text, "Mend the DNS record, or CAUSEWAY_NODE_PUBLIC_HOST: players are sent to the name.")


def _incidents(of: Of, node: RelayNode) -> Iterator[Finding]:
    """Recent ones, and that its measurements are not believed."""
    todo = {
        IncidentKind.DUPLICATE: "Stop one of the two; a copied machine needs an empty state folder and a join key.",
        IncidentKind.OUTLIER: "Look at its machine; when it is in order, forget the incident in the admin.",
    }
    for incident in node.recent_incidents:  # type: ignore[attr-defined]
        step = todo.get(IncidentKind(incident.kind), "Is its machine still yours alone? Drain it, and look at its log.")
        yield of.problem("incidents", f"{incident.get_kind_display()}: {incident.detail}", step)


def seats(of: Of, node: RelayNode) -> Finding:
    workers = node.workers.all()
    free, capacity = sum(worker.free_seats for worker in workers), sum(worker.capacity for worker in workers)
    text = f"{free} of {capacity} seats are free"
    if free < (1 - FULL_WARNING) * capacity:
        return of.warning("seats", text, "Add a node at its location.")
    return of.ok("seats", text)


def token_keys(of: Of, node: RelayNode) -> Finding:
    """The key that seals connect tokens must be one that the node holds, and young enough."""
    sealing = [key for key in node.token_keys.all() if key.retired_at is None]
    held = [key for key in sealing if key.confirmed_at]
    if not held:
        todo = "It gets them with its heartbeats: does it reach the manager?"
        return of.problem("token keys", "it holds none of the keys that seal connect tokens", todo)
    age = timezone.now() - max(key.created_at for key in held)
    if age > timedelta(seconds=1.1 * settings.TOKEN_KEY_LIFETIME):
        todo = "A worker rolls it each hour, from the queue housekeeping; is one running?"
        return of.warning("token keys", f"the key that seals is {age.days} days old", todo)
    return of.ok("token keys", f"holds the one that seals, {age.days} days old")

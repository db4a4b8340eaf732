"""The nodes: requests to their control APIs, and measurements of their UDP ports, all at the same time."""

import asyncio
import math
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from typing import TYPE_CHECKING

from django.conf import settings
from django.db.models import Prefetch
from django.utils import timezone

from causeway_client.protocol.probing import Measurement
from relaymgr.nodes.control_client import NodeRefused, Probe, ProbeAnswer, ProbeFailure, health_of, telemetry_of
from relaymgr.nodes.health.incidents import incidents_recent
from relaymgr.nodes.locations.address_families import IPV4, IPV6, family_of
from relaymgr.nodes.selectors import placement_nodes
from relaymgr.nodes.states import IncidentKind, NodeState
from relaymgr.telemetry.probing.reports import Report, parse_report
from web.background_loop import wait_for
from web.diagnostics import Check, Finding

from .udp_probe import Port, measure_all
from .websocket_probe import Answer, try_all

if TYPE_CHECKING:
    from relaymgr.nodes.models import RelayNode

RESPONSE_TIMEOUT_S, RESOLVE_TIMEOUT_S = 3.0, 3.0
CLOCK_WARNING_S = 1.0
FULL_WARNING = 0.9  # of the seats
BUSY = 0.7  # of a core
CERTIFICATE_WARNING_DAYS, DAY_S = 14, 86_400
FLEET = Check("fleet")


@dataclass(frozen=True)
class Observation:
    """A node as stored in the database, its responses, and the measurements of its UDP ports."""

    node: "RelayNode"
    telemetry: ProbeAnswer | ProbeFailure
    health: ProbeAnswer | ProbeFailure
    ports: dict[Port, Measurement | OSError]
    addresses: list[str] | None  # that its DNS name resolves to; None: it has no DNS name
    websocket: Answer | None  # None: it has no WebSocket port


def check() -> Iterator[Finding]:
    recent = Prefetch("incidents", incidents_recent(), to_attr="recent_incidents")
    nodes = list(placement_nodes().prefetch_related("token_keys", recent))
    yield from fleet(nodes)
    observations = wait_for(_observe(nodes))
    versions = {node.version for node in nodes if node.state != NodeState.LOST}
    for each in observations:
        yield from _node(each, versions)


async def _observe(nodes: Sequence["RelayNode"]) -> list[Observation]:
    probes = [Probe(node.pk, node.control_url, node.control_key, node.last_event) for node in nodes]
    telemetry, health, ports, addresses, websockets = await asyncio.gather(
        telemetry_of(probes, RESPONSE_TIMEOUT_S),
        health_of(probes, RESPONSE_TIMEOUT_S),
        measure_all(port for node in nodes for port in _ports(node)),
        asyncio.gather(*(_resolve(node.host) for node in nodes)),
        try_all(url for node in nodes if (url := _websocket_url(node))),
    )
    return [
        Observation(
            node,
            its_telemetry,
            its_health,
            {port: ports[port] for port in _ports(node)},
            found,
            websockets.get(_websocket_url(node) or ""),
        )
        for node, its_telemetry, its_health, found in zip(nodes, telemetry, health, addresses, strict=True)
    ]


def _ports(node: "RelayNode") -> list[Port]:
    """The ports of present workers; the row of a worker that was removed remains, with a capacity of 0."""
    workers = [worker for worker in node.workers.all() if worker.capacity]
    ports = [port for worker in workers for port in (worker.server_port, worker.client_port)]
    return [(address, port) for address in node.addresses.values() for port in ports]


def _websocket_url(node: "RelayNode") -> str | None:
    ports = [worker.client_port for worker in node.workers.all() if worker.capacity]
    return node.websocket_url_of(ports[0]) if ports else None


async def _resolve(host: str) -> list[str] | None:
    if not host:
        return None
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT_S):
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        return []
    return sorted({str(address[0]) for *_, address in found})


# All nodes together


def fleet(nodes: Sequence["RelayNode"]) -> Iterator[Finding]:
    if not nodes:
        hint = "Create a join key with `relayctl join-key LOCATION`, and start a node with it."
        yield FLEET.warning("nodes", "no node has joined", hint)
        return
    taking = [node for node in nodes if node.takes_sessions]
    if not taking:
        hint = "Start nodes, or undrain some with `relayctl undrain NODE`: no session can be created."
        yield FLEET.problem("nodes", f"none of {len(nodes)} nodes takes sessions", hint)
        return
    yield FLEET.ok("nodes", f"{len(taking)} of {len(nodes)} nodes take sessions")
    workers = [worker for node in taking for worker in node.workers.all()]
    free, capacity = sum(worker.free_seats for worker in workers), sum(worker.capacity for worker in workers)
    message = f"{free} of {capacity} seats are free"
    if free == 0:
        yield FLEET.problem("free_seats", message, "Add nodes: no session can be created.")
    elif free < (1 - FULL_WARNING) * capacity:
        yield FLEET.warning("free_seats", message, "Add nodes, or raise CAUSEWAY_NODE_CAPACITY where cores are idle.")
    else:
        yield FLEET.ok("free_seats", message)


# One node


def _node(observed: Observation, versions: set[str]) -> Iterator[Finding]:
    node, check = observed.node, Check("node", observed.node.name)
    yield state(node)
    report = None
    if isinstance(observed.telemetry, ProbeFailure):
        yield _no_response(check, node, observed.telemetry)
    else:
        report = _report(observed.telemetry)
        yield _control_api(check, observed.telemetry, report)
    if report and isinstance(observed.telemetry, ProbeAnswer):
        middle = (observed.telemetry.sent_at + observed.telemetry.answered_at) / 2
        yield clock(check, report.time - middle)
        yield packet_path(check, report)
        yield version(check, report.version, versions)
    yield from _manager_link(check, observed.health)
    yield from udp_ports(check, node, observed.ports)
    yield from _dns_name(check, node, observed.addresses)
    if observed.websocket is not None:
        yield websocket(check, node, observed.websocket, timezone.now().timestamp())
    yield from _incidents(check, node)
    yield free_seats(check, node)
    yield token_keys(check, node)


def state(node: "RelayNode") -> Finding:
    check = Check("node", node.name)
    if node.state == NodeState.LOST:
        hint = f"Check its machine and its log and start it again, or remove it: relayctl remove {node}."
        return check.problem("state", "lost: it does not respond to probes", hint)
    if node.state == NodeState.SUSPECT:
        message = f"suspect: {node.missed_probes} consecutive probes got no response"
        return check.problem("state", message, "Check its machine, and the network between the worker and the node.")
    if node.state == NodeState.JOINING:
        hint = "It becomes ready with its first response to a probe at its control URL. Is the worker running?"
        return check.warning("state", "joining: it has not responded to a probe yet", hint)
    if not node.takes_sessions:
        hint = f"After the maintenance: relayctl undrain {node}, or stop it and relayctl remove {node}."
        return check.warning("state", "draining: it takes no new sessions", hint)
    return check.ok("state", "ready")


def _no_response(check: Check, node: "RelayNode", failure: ProbeFailure) -> Finding:
    if isinstance(failure.error, NodeRefused):
        hint = "Its keys are those of another manager or of an earlier join. Empty its state folder, and join it anew."
        message = f"{node.control_url} rejects the manager's key ({failure.error.code})"
        return check.problem("control_api", message, hint)
    hint = (
        "Check that the node runs, that the manager can reach CAUSEWAY_NODE_CONTROL_URL, and that a firewall does not "
        "block the port."
    )
    message = f"{node.control_url} gave no response within {RESPONSE_TIMEOUT_S:.0f} s ({failure.error})"
    return check.problem("control_api", message, hint)


def _report(response: ProbeAnswer) -> Report | None:
    try:
        return parse_report(response.document)
    except ValueError:
        return None


def _control_api(check: Check, response: ProbeAnswer, report: Report | None) -> Finding:
    took = f"{1000 * (response.answered_at - response.sent_at):.0f} ms"
    if report is None:
        hint = "Another program may listen at that address. Otherwise run the same version there as here."
        return check.problem("control_api", f"responds in {took}, but the response cannot be parsed", hint)
    return check.ok("control_api", f"accepts the manager's key, responds in {took}")


def clock(check: Check, offset_s: float) -> Finding:
    message = f"{offset_s:+.3f} s from the clock of this machine"
    if abs(offset_s) < CLOCK_WARNING_S:
        return check.ok("clock", message)
    hint = "Synchronise it (NTP): the expiry of tokens depends on it, and a node with a larger offset cannot join."
    make = check.problem if abs(offset_s) > settings.NODE_MAX_CLOCK_SKEW else check.warning
    return make("clock", message, hint)


def packet_path(check: Check, report: Report) -> Finding:
    message = report.packet_path + (f": {report.packet_path_reason}" if report.packet_path_reason else "")
    if report.packet_path == "userspace" and report.cpu > BUSY:
        hint = "The XDP path needs a fraction of that. See docs/packet-paths.md for its requirements."
        return check.warning("packet_path", f"{message}; its busiest worker uses {report.cpu:.0%} of a core", hint)
    return check.ok("packet_path", message)


def version(check: Check, own: str, versions: set[str]) -> Finding:
    ours = settings.SPECTACULAR_SETTINGS["VERSION"]
    if own == ours:
        return check.ok("version", own)
    others = f"; the fleet runs {', '.join(sorted(versions))}" if len(versions) > 1 else ""
    message = f"{own or 'unknown'}, the manager runs {ours}{others}"
    return check.warning("version", message, "Complete the upgrade, or roll it back.")


def _manager_link(check: Check, health: ProbeAnswer | ProbeFailure) -> Iterator[Finding]:
    """The connection from the node to the manager. A node that does not respond has a finding of its own."""
    link = health.document.get("manager") if isinstance(health, ProbeAnswer) else "connected"
    if link == "unreachable":
        hint = (
            "From the node, test CAUSEWAY_NODE_MANAGER_URL: DNS name, route, firewall, certificate, and ALLOWED_HOSTS "
            "of the manager."
        )
        yield check.problem("manager_link", "it cannot reach the manager", hint)
    elif link == "refused":
        hint = "Empty its state folder and let it join with a new key: relayctl join-key LOCATION."
        yield check.problem("manager_link", "the manager rejects its key", hint)
    elif link == "duplicate":
        hint = "Stop one of the two processes. A cloned machine needs an empty state folder and a join key."
        yield check.problem("manager_link", "the process that responds is a second one with this node's identity", hint)
    elif link == "standalone":
        yield check.problem("manager_link", "it runs without a manager", "Set CAUSEWAY_NODE_MANAGER_URL on the node.")


def udp_ports(check: Check, node: "RelayNode", ports: dict[Port, Measurement | OSError]) -> Iterator[Finding]:
    """One finding for all ports of an address that have the same result."""

    def result(port: Port) -> tuple[str, str]:
        return port[0], _result(ports[port])

    for (address, text), alike in groupby(sorted(ports, key=result), key=result):
        numbers = ", ".join(str(port) for _, port in sorted(alike))
        message = f"{address}, ports {numbers}: {text}"
        if text == REACHABLE:
            trips = [
                found.rtt_ms
                for (reached, _), found in ports.items()
                if reached == address and isinstance(found, Measurement) and found.rtt_ms is not None
            ]
            yield check.ok("udp_ports", f"{message} in {min(trips):.1f} ms")
        elif text == LOSSY:
            hint = "Check the network for loss, and its MTU: every other probe has 1,000 bytes."
            yield check.warning("udp_ports", message, hint)
        else:
            hint = (
                "Open these UDP ports to all sources, in the firewall and in the rules of the provider; players use "
                f"the address in {ADDRESS_VARIABLES[family_of(address)]}. If players do reach it, only the network "
                "between the manager and the node blocks UDP."
            )
            yield check.problem("udp_ports", message, hint)


# The settings that a node's addresses come from; a node with both families has its IPv6 address in the second.
ADDRESS_VARIABLES = {IPV4: "CAUSEWAY_NODE_PUBLIC_IP", IPV6: "CAUSEWAY_NODE_PUBLIC_IPV6 or CAUSEWAY_NODE_PUBLIC_IP"}
REACHABLE, LOSSY, UNREACHABLE = "reachable", "reachable, with packet loss", "no reply"


def _result(found: Measurement | OSError) -> str:
    if isinstance(found, OSError):
        return found.strerror or type(found).__name__
    if found.rtt_ms is None:
        return UNREACHABLE
    return REACHABLE if math.isclose(found.loss, 0.0) else LOSSY


def _dns_name(check: Check, node: "RelayNode", addresses: list[str] | None) -> Iterator[Finding]:
    if addresses is None:
        return
    expected = sorted(node.addresses.values())
    if set(expected) <= set(addresses):
        yield check.ok("dns_name", f"{node.host} resolves to {', '.join(expected)}")
        return
    message = f"{node.host} does not resolve"
    if addresses:
        message = f"{node.host} resolves to {', '.join(addresses)} instead of {', '.join(expected)}"
    hint = "Correct the DNS record or CAUSEWAY_NODE_PUBLIC_HOST: players connect to this name."
    yield check.problem("dns_name", message, hint)


def websocket(check: Check, node: "RelayNode", answer: Answer, now: float) -> Finding:
    if answer.error:
        hint = (
            "Players whose network blocks UDP cannot play. Check CAUSEWAY_NODE_WEBSOCKET_PORT and "
            "CAUSEWAY_NODE_WEBSOCKET_URL, the certificate and its name, the proxy if there is one, and the firewall."
        )
        return check.problem("websocket", f"{node.websocket_url}: {answer.error}", hint)
    message = f"{node.websocket_url} answers in {answer.rtt_ms:.1f} ms"
    if answer.expires_at is None:
        return check.ok("websocket", f"{message}, without TLS")
    days = (answer.expires_at - now) / DAY_S
    message += f"; the certificate expires in {days:.0f} days"
    if days < CERTIFICATE_WARNING_DAYS:
        hint = "Renew the certificate. The node loads a changed file by itself: see docs/direct-paths.md."
        return check.warning("websocket", message, hint)
    return check.ok("websocket", message)


def _incidents(check: Check, node: "RelayNode") -> Iterator[Finding]:
    hints = {
        IncidentKind.DUPLICATE: "Stop one of the two processes. A cloned machine needs an empty state folder and a "
        "join key.",
        IncidentKind.OUTLIER: "Check its machine. Once it is in order, delete the incident in the console.",
    }
    otherwise = "Check its log, and whether its machine is compromised. Drain it meanwhile."
    for incident in node.recent_incidents:  # type: ignore[attr-defined]
        hint = hints.get(IncidentKind(incident.kind), otherwise)
        yield check.problem("incidents", f"{incident.get_kind_display()}: {incident.detail}", hint)


def free_seats(check: Check, node: "RelayNode") -> Finding:
    workers = node.workers.all()
    free, capacity = sum(worker.free_seats for worker in workers), sum(worker.capacity for worker in workers)
    message = f"{free} of {capacity} seats are free"
    if free < (1 - FULL_WARNING) * capacity:
        return check.warning("free_seats", message, "Add a node at its location.")
    return check.ok("free_seats", message)


def token_keys(check: Check, node: "RelayNode") -> Finding:
    """The key that encrypts connect tokens has to be one that the node holds, and not too old."""
    current = [key for key in node.token_keys.all() if key.retired_at is None]
    held = [key for key in current if key.confirmed_at]
    if not held:
        hint = "It receives the keys with its heartbeats. Check that it reaches the manager."
        return check.problem("token_keys", "it holds none of the keys that encrypt connect tokens", hint)
    age = timezone.now() - max(key.created_at for key in held)
    if age > timedelta(seconds=1.1 * settings.TOKEN_KEY_LIFETIME):
        hint = "A worker rotates it every hour when due, from the queue housekeeping. Check that one is running."
        return check.warning("token_keys", f"the current key is {age.days} days old", hint)
    return check.ok("token_keys", f"it holds the current key, which is {age.days} days old")

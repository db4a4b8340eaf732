"""`manage.py up`: a whole installation on one machine, supervised."""

import asyncio
import functools
import shutil
import socket
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from relaymgr.management.supervisor import Child, ChildExit, supervise
from relaymgr.nodes.keys import join_key_create
from relaymgr.nodes.locations.address_families import bracketed
from relaymgr.nodes.selectors import node_find
from relaymgr.nodes.services import location_ensure
from relaymgr.telemetry.process_exits import ExitReport, boot_id_new, process_exits_record
from relaymgr.tenants.services import service_key_create

# The locations of the embedded nodes, which all run on loopback: the map and placement need different ones.
LOCATIONS = [
    {
        "slug": "frankfurt",
        "city": "Frankfurt",
        "country": "Germany",
        "country_code": "DE",
        "continent": "Europe",
        "region": "Hesse",
        "timezone": "Europe/Berlin",
        "latitude": 50.11,
        "longitude": 8.68,
    },
    {
        "slug": "virginia",
        "city": "Ashburn",
        "country": "United States of America",
        "country_code": "US",
        "continent": "North America",
        "region": "Virginia",
        "timezone": "America/New_York",
        "latitude": 39.04,
        "longitude": -77.49,
    },
    {
        "slug": "singapore",
        "city": "Singapore",
        "country": "Singapore",
        "country_code": "SG",
        "continent": "Asia",
        "region": "",
        "timezone": "Asia/Singapore",
        "latitude": 1.35,
        "longitude": 103.82,
    },
]


class Command(BaseCommand):
    help = "Run the manager, a Celery worker, beat, some relay nodes and a matchmaker on this machine until stopped."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="where the web server listens (%(default)s)")
        parser.add_argument(
            "--port", type=int, default=8000, help="of the web server; the nodes' control ports follow (%(default)s)"
        )
        parser.add_argument("--nodes", type=int, default=len(LOCATIONS), choices=range(len(LOCATIONS) + 1))
        parser.add_argument(
            "--relay-port", type=int, default=31000, help="first UDP port; each node takes two (%(default)s)"
        )

    def handle(self, *args: Any, host: str, port: int, nodes: int, relay_port: int, **options: Any) -> None:
        _require_free_ports(host, port, nodes, relay_port)
        call_command("migrate", verbosity=0)
        _keep_url(f"http://{_reached_at(host)}:{port}")
        children = [*_manager(host, port), *(_node(number, host, port, relay_port) for number in range(nodes))]
        children.append(_matchmaker(host, port))
        self._say(f"manager at http://{bracketed(host)}:{port}/ with {nodes} nodes, state in {settings.STATE_DIR}")
        asyncio.run(supervise(children, self._say, functools.partial(_record, boot_id_new())))

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()


def _keep_url(url: str) -> None:
    """For `doctor`. Replaces the file atomically."""
    draft = settings.WEB_URL_FILE.with_suffix(".new")
    draft.write_text(url)
    draft.replace(settings.WEB_URL_FILE)


def _record(boot_id: str, ends: Sequence[ChildExit]) -> None:
    try:
        process_exits_record(
            ExitReport(
                supervisor="manage.py up",
                process=end.name,
                boot_id=boot_id,
                number=end.number,
                at=datetime.fromtimestamp(end.at, UTC),
                status=end.status,
                uptime_s=end.uptime,
            )
            for end in ends
        )
    finally:
        connections.close_all()  # of this thread


def _require_free_ports(host: str, port: int, nodes: int, relay_port: int) -> None:
    if problem := _problem(socket.SOCK_STREAM, host, 0):
        raise CommandError(f"Nothing can listen on --host {host}: {problem}.")
    wanted = [("web", socket.SOCK_STREAM, host, port, "--port")]
    for number in range(nodes):
        wanted.append(("node control", socket.SOCK_STREAM, "127.0.0.1", port + 1 + number, "--port"))
    for number in range(2 * nodes):
        wanted.append(("relay", socket.SOCK_DGRAM, "", relay_port + number, "--relay-port"))
    for what, kind, address, number, option in wanted:
        problem = _problem(kind, address, number) if 1 <= number <= 65535 else "ports go from 1 to 65535"
        if problem:
            raise CommandError(f"Port {number} ({what}) cannot be used: {problem}. Choose another with {option}.")


def _problem(kind: int, address: str, port: int) -> str:
    """Why the port cannot be used; empty when it can."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, kind) as probe:
        if kind == socket.SOCK_STREAM:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            return error.strerror or "it is refused"
    return ""


def _manager(host: str, port: int) -> list[Child]:
    celery = [sys.executable, "-m", "celery", "-A", "relaymgr"]
    queues = ",".join(settings.WORK_QUEUES)
    return [
        _child(
            "web",
            [sys.executable, "-m", "uvicorn", "relaymgr.asgi:application", "--host", host, "--port", str(port)]
            # Longer than clients keep idle connections (httpx: 5 s), because a request on a connection that is being
            # closed fails.
            + [
                "--http",
                "web.http.protocol:BoundedProtocol",
                "--no-proxy-headers",
                "--no-access-log",
                "--timeout-keep-alive",
                "30",
            ]
            + ["--timeout-graceful-shutdown", "3"],
        ),
        _child(
            "worker",
            [*celery, "worker", "-P", "threads", "-c", "8", "-Q", queues, "-l", "INFO"]
            + ["--without-gossip", "--without-mingle"],
        ),
        _child("beat", [*celery, "beat", "-l", "INFO"]),
    ]


def _matchmaker(host: str, port: int) -> Child:
    env = {
        "CAUSEWAY_MATCHMAKER_MANAGER_URL": f"http://{_reached_at(host)}:{port}",
        # Created at each start, because it is stored nowhere.
        "CAUSEWAY_MATCHMAKER_KEY": service_key_create(name="manage.py up"),
    }
    return _child("matchmaker", [sys.executable, "manage.py", "runmatchmaker"], env)


def _node(number: int, host: str, port: int, relay_port: int) -> Child:
    place = LOCATIONS[number]
    name = f"{place['slug']}-1"
    state = settings.STATE_DIR / "nodes" / name
    env = {
        "CAUSEWAY_NODE_NAME": name,
        "CAUSEWAY_NODE_MANAGER_URL": f"http://{_reached_at(host)}:{port}",
        "CAUSEWAY_NODE_PUBLIC_IP": "127.0.0.1",
        "CAUSEWAY_NODE_PUBLIC_IPV6": "" if _problem(socket.SOCK_DGRAM, "::1", 0) else "::1",
        "CAUSEWAY_NODE_CONTROL_PORT": str(port + 1 + number),
        "CAUSEWAY_NODE_BASE_PORT": str(relay_port + 2 * number),
        "CAUSEWAY_NODE_WORKERS": "1",
        "CAUSEWAY_NODE_STATE_DIR": str(state),
        "CAUSEWAY_NODE_JOIN_KEY": _join_key(name, place, state),
    }
    return _child(name, [sys.executable, "-m", "relaynode"], env)


def _reached_at(host: str) -> str:
    """The host in URLs."""
    if host in ("0.0.0.0", "::"):  # noqa: S104 - recognised, not bound to # nosec B104
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}[host]  # noqa: S104 # nosec B104
    return bracketed(host)


def _join_key(name: str, place: dict[str, Any], state: Path) -> str:
    """A join key for a node that has not joined yet; empty for one that has."""
    if node_find(name=name) and state.exists():
        return ""
    shutil.rmtree(state, ignore_errors=True)  # it belongs to a database that no longer exists
    return join_key_create(location=location_ensure(**place))


def _child(name: str, argv: list[str], env: dict[str, str] | None = None) -> Child:
    return Child(name, argv, env or {}, settings.STATE_DIR / "log" / f"{name}.log")

"""Metrics to be read: in one process from its memory, in several that serve one port from files they share.

Who reads shows a key where one is set, as `Authorization: Bearer <key>`.
"""

import contextlib
import hashlib
import hmac
import logging
import multiprocessing
import os
import re
import socket
import tempfile
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from observability.connections import Unauthenticated

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.registry import Collector

logger = logging.getLogger(__name__)

PER_ADDRESS, IN_ALL = 8, 32  # connections
CONNECTION_SECONDS = 10  # which one may last
SHARED = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client's own variable; it is read when that is first imported


def share_between_processes() -> None:
    """For a server that may run as several processes (`uvicorn --workers`). Call before prometheus_client is imported.

    The processes of one server, and no others, share an authkey: so a folder of its own for each start of a server.
    """
    if SHARED in os.environ or multiprocessing.parent_process() is None:
        return
    name = hashlib.sha256(bytes(multiprocessing.current_process().authkey)).hexdigest()[:20]
    folder = Path(tempfile.gettempdir()) / f"causeway-metrics-{name}"
    folder.mkdir(mode=0o700, exist_ok=True)  # readable by this user only
    os.environ[SHARED] = str(folder)


def render(extra: Iterable["Collector"] = ()) -> bytes:
    """All metrics of this process and those it shares them with, and what the collectors find out now."""
    from prometheus_client import REGISTRY, CollectorRegistry, disable_created_metrics, generate_latest

    disable_created_metrics()  # type: ignore[no-untyped-call]  # a third more series, for nothing that anybody here asks
    registry = CollectorRegistry()
    if folder := os.environ.get(SHARED):
        from prometheus_client.multiprocess import MultiProcessCollector

        _forget_gauges_of_the_dead(Path(folder))
        MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
    else:
        registry.register(_All(REGISTRY))
    for collector in extra:
        registry.register(collector)
    return generate_latest(registry)


def may_read(authorization: str, key: str) -> bool:
    """Whether the header holds the key. No key: everybody may."""
    word, _, given = authorization.partition(" ")
    return not key or (word.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), key.encode()))


def serve(port: int, *, host: str, key: str, observe: Callable[[], None] = lambda: None) -> None:
    """Serve GET /metrics from a thread. `observe` is called before each answer. 0: do not.

    A port that cannot be opened is logged, and the process runs without it: a game is worth more than a metric.
    """
    if not port:
        return
    from prometheus_client import CONTENT_TYPE_LATEST

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if environ.get("PATH_INFO") != "/metrics":
            start_response("404 Not Found", [])
            return []
        if not may_read(environ.get("HTTP_AUTHORIZATION", ""), key):
            start_response("401 Unauthorized", [("WWW-Authenticate", "Bearer")])
            return []
        observe()
        start_response("200 OK", [("Content-Type", CONTENT_TYPE_LATEST)])
        return [render()]

    try:
        server = make_server(host, port, application, server_class=_Server, handler_class=_Handler)
    except OSError as error:
        logger.error("no metrics at %s:%d: %s", host, port, error.strerror)
        return
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    logger.info("metrics at http://%s:%d/metrics", host, server.server_port)


class _Server(ThreadingMixIn, WSGIServer):
    """Each connection has a thread, so there are few of them, and none lasts."""

    daemon_threads = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._connections: Unauthenticated[socket.socket] = Unauthenticated(PER_ADDRESS, IN_ALL)
        self._lock = threading.Lock()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            oldest = self._connections.add(request, client_address[0])
        if oldest is not None:
            _hang_up(oldest)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.remove(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader that left, or was cut off."""
        logger.debug("a reader of metrics left", exc_info=True)

    def service_actions(self) -> None:
        """Twice a second."""
        with self._lock:
            late = self._connections.older_than(CONNECTION_SECONDS)
        for connection in late:
            _hang_up(connection)


def _hang_up(connection: socket.socket) -> None:
    """Its thread reads the end, and closes it."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class _Handler(WSGIRequestHandler):
    timeout = CONNECTION_SECONDS

    def log_message(self, format: str, *args: Any) -> None:
        pass


class _All:
    """Everything in a registry, as one collector."""

    def __init__(self, registry: "CollectorRegistry") -> None:
        self.collect = registry.collect


def _forget_gauges_of_the_dead(folder: Path) -> None:
    """Counts of a process that ended stay in the sums, its gauges do not."""
    for file in folder.glob("gauge_live*.db"):
        found = re.search(r"_(\d+)\.db$", file.name)
        if found and not _is_alive(int(found[1])):
            with contextlib.suppress(OSError):
                file.unlink()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True

"""Serves metrics to Prometheus: from memory, or from shared files where several processes serve one port.

Where a key is set, the reader must send it as `Authorization: Bearer <key>`.
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

PER_ADDRESS, IN_ALL = 8, 32  # maximum numbers of connections
CONNECTION_SECONDS = 10  # maximum duration of a connection
SHARED = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client reads this variable when it is first imported


def share_between_processes() -> None:
    """For a server that may run as several processes (`uvicorn --workers`). Call before importing prometheus_client.

    Only the processes of one server share an authkey, so each start of a server has a folder of its own.
    """
    if SHARED in os.environ or multiprocessing.parent_process() is None:
        return
    name = hashlib.sha256(bytes(multiprocessing.current_process().authkey)).hexdigest()[:20]
    folder = Path(tempfile.gettempdir()) / f"causeway-metrics-{name}"
    folder.mkdir(mode=0o700, exist_ok=True)  # readable by this user only
    os.environ[SHARED] = str(folder)


def render(extra: Iterable["Collector"] = ()) -> bytes:
    """All metrics of this process, of the processes it shares files with, and of the collectors."""
    from prometheus_client import REGISTRY, CollectorRegistry, disable_created_metrics, generate_latest

    disable_created_metrics()  # type: ignore[no-untyped-call]  # they would add a third more series, which are not used
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
    """Whether the header contains the key. Without a key, any reader may."""
    word, _, given = authorization.partition(" ")
    return not key or (word.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), key.encode()))


def serve(port: int, *, host: str, key: str, observe: Callable[[], None] = lambda: None) -> None:
    """Serve GET /metrics from a thread. `observe` is called before each answer. Port 0: do not serve metrics.

    If the port cannot be opened, this is logged and the process runs without it: games matter more than metrics.
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
    """Each connection has a thread, so their number and their duration are limited."""

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
        """The reader closed the connection, or it was cut off."""
        logger.debug("a reader of metrics left", exc_info=True)

    def service_actions(self) -> None:
        """The server calls this every half second."""
        with self._lock:
            late = self._connections.older_than(CONNECTION_SECONDS)
        for connection in late:
            _hang_up(connection)


def _hang_up(connection: socket.socket) -> None:
    """The thread of the connection then reads the end of the stream and closes it."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class _Handler(WSGIRequestHandler):
    timeout = CONNECTION_SECONDS

    def log_message(self, format: str, *args: Any) -> None:
        pass


class _All:
    """All metrics of a registry, as one collector."""

    def __init__(self, registry: "CollectorRegistry") -> None:
        self.collect = registry.collect


def _forget_gauges_of_the_dead(folder: Path) -> None:
    """The counters of an ended process stay in the sums, but its gauges must not."""
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

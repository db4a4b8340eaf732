"""The node's control API (docs/node-api.md), by which the manager grants sessions and reads telemetry."""

import contextlib
import hmac
import re
import socket
from collections.abc import Iterator

import msgspec
import uvicorn
from msgspec import Struct
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from nodeapi.grants import END_REASONS, GrantConfirmation
from nodeapi.ids import SESSION_ID_RULE, is_session_id
from nodeapi.peers import PeerListConfirmation, parse_peers
from nodeapi.strict_json import InvalidDocument, read_json
from observability import tracing
from observability.correlation import request_id_of, trace_id_of
from observability.guarded_http import GuardedProtocol, authenticated
from observability.log_config import bound

from ..core.grants import GrantRefused, read_grant
from ..errors import WorkerDown
from ..supervision.node import Node
from .metrics import CONTENT_TYPE, render

MAX_BODY = 1 << 20
MAX_CONNECTIONS = 512  # far fewer without the control key (observability.guarded_http)
STOP_TIMEOUT = 1


class ApiError(Exception):
    """An error response. `field` names the invalid part of the request, if there is one."""

    def __init__(self, status: int, code: str, message: str, field: str = "") -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.field = status, code, message, field


class ControlApi:
    """One method for each call: it parses the request, calls the node, and responds."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def put_session(self, request: Request) -> Response:
        session = _session(request)
        grant = read_grant(await _json_body(request))
        if grant.session != session:
            raise ApiError(400, "invalid", "session must be the one in the path", "session")
        return _document(GrantConfirmation(session=session, revision=await self._node.grant(grant)))

    async def delete_session(self, request: Request) -> Response:
        reason = request.query_params.get("reason", "deleted")
        if reason not in END_REASONS:
            raise ApiError(400, "invalid", f"reason must be one of {', '.join(END_REASONS)}", "reason")
        await self._node.end_session(_session(request), reason)
        return Response(status_code=204)

    async def telemetry(self, request: Request) -> Response:
        after = request.query_params.get("after", "0")
        if not re.fullmatch(r"[0-9]{1,18}", after):
            raise ApiError(400, "invalid", "after must be the number of an event", "after")
        with_peers = request.query_params.get("peers") == "1"
        return _document(await self._node.telemetry(int(after), with_peers=with_peers))

    async def put_peers(self, request: Request) -> Response:
        peers = parse_peers(await _json_body(request))
        self._node.set_peers(peers.peers, peers.version)
        return _document(PeerListConfirmation(peers.version))

    async def drain(self, request: Request) -> Response:
        await self._node.set_draining(True)
        return JSONResponse({"draining": self._node.draining})

    async def undrain(self, request: Request) -> Response:
        await self._node.set_draining(False)
        return JSONResponse({"draining": self._node.draining})

    async def health(self, request: Request) -> Response:
        status = {
            "status": "ok" if self._node.is_healthy else "worker_down",
            "manager": self._node.link,
            "boot_id": self._node.boot_id,
        }
        return JSONResponse(status, 200 if self._node.is_healthy else 503)

    async def metrics(self, request: Request) -> Response:
        return Response(await render(self._node), headers={"Content-Type": CONTENT_TYPE})


def control_app(node: Node) -> Starlette:
    api = ControlApi(node)
    for_manager = [Middleware(RequireKey, node=node), Middleware(Correlated)]
    app = Starlette(
        routes=[
            Route("/sessions/{session}", api.put_session, methods=["PUT"], middleware=for_manager),
            Route("/sessions/{session}", api.delete_session, methods=["DELETE"], middleware=for_manager),
            Route("/telemetry", api.telemetry, methods=["GET"], middleware=for_manager),
            Route("/peers", api.put_peers, methods=["PUT"], middleware=for_manager),
            Route("/drain", api.drain, methods=["POST"], middleware=for_manager),
            Route("/undrain", api.undrain, methods=["POST"], middleware=for_manager),
            Route("/healthz", api.health, methods=["GET"]),
            Route("/metrics", api.metrics, methods=["GET"]),
        ],
        exception_handlers={
            ApiError: _answer_api_error,
            GrantRefused: _answer_refusal,
            InvalidDocument: _answer_invalid,
            WorkerDown: _answer_worker_down,
            HTTPException: _answer_http_error,
            Exception: _answer_fault,
        },
    )
    app.router.redirect_slashes = False
    return app


class RequireKey:
    """Admits requests with the control key, and does not read the body of any other."""

    def __init__(self, app: ASGIApp, node: Node) -> None:
        self._app = app
        self._node = node

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        word, _, given = Request(scope).headers.get("authorization", "").partition(" ")
        key = self._node.keys.control_key
        right = hmac.compare_digest(given.strip().encode(), key.encode())
        # Without a key, the node has not joined yet, and no caller may control it.
        if not (right and key and word.lower() == "bearer"):
            answer = _error(401, "unauthorized", "the control key is missing or wrong")
            answer.headers["WWW-Authenticate"] = "Bearer"
            await answer(scope, receive, send)
        else:
            authenticated(scope)
            await self._app(scope, receive, send)


class Correlated:
    """Adds the ids of the manager's request and trace to log lines. It continues a trace but never starts one, because
    most calls are probes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Request(scope).headers
        request_id, trace_id = request_id_of(headers), trace_id_of(headers)
        session = scope["path_params"].get("session", "")
        with bound(request_id=request_id, trace_id=trace_id, session_id=session if is_session_id(session) else ""):
            if not trace_id:
                await self._app(scope, receive, send)
                return
            path = scope["path"].replace(session, "{session}") if session else scope["path"]
            with tracing.span(f"{scope['method']} {path}", kind="server", parent=headers):
                await self._app(scope, receive, send)


class ControlServer:
    """Serves the control API on a listening socket."""

    def __init__(self, node: Node, listener: socket.socket) -> None:
        self._listener = listener
        self._server = _Server(
            uvicorn.Config(
                control_app(node),
                log_config=None,
                access_log=False,
                lifespan="off",
                ws="none",
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=STOP_TIMEOUT,
                http=GuardedProtocol,
                limit_concurrency=MAX_CONNECTIONS,
            )
        )

    async def run(self) -> None:
        """Run until `stop`."""
        await self._server.serve([self._listener])

    def stop(self) -> None:
        self._server.should_exit = True


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The node handles signals itself: it drains first."""
        yield


def _session(request: Request) -> str:
    session: str = request.path_params["session"]
    if not is_session_id(session):
        raise ApiError(400, "invalid", f"session {SESSION_ID_RULE}", "session")
    return session


async def _json_body(request: Request) -> object:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise ApiError(413, "too_large", f"the body must not be longer than {MAX_BODY} bytes")
    try:
        return read_json(body)
    except ValueError:
        raise ApiError(400, "invalid", "the body must be JSON") from None


def _document(document: Struct) -> Response:
    return Response(msgspec.json.encode(document), media_type="application/json")


def _error(status: int, code: str, message: str, field: str = "") -> JSONResponse:
    details = {field: [{"code": code, "message": message}]} if field else {}
    return JSONResponse({"message": message, "code": code, "details": details}, status)


async def _answer_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)  # noqa: S101 - guaranteed by Starlette; for the type checker
    return _error(error.status, error.code, error.message, error.field)


async def _answer_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, InvalidDocument)  # noqa: S101
    return _error(400, "invalid", str(error), error.field)


async def _answer_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, GrantRefused)  # noqa: S101
    return _error(400 if error.code == "invalid" else 409, error.code, error.message, error.field)


async def _answer_worker_down(request: Request, error: Exception) -> Response:
    return _error(503, "worker_down", str(error))


async def _answer_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid")
    answer = _error(error.status_code, code, error.detail)
    answer.headers.update(error.headers or {})
    return answer


async def _answer_fault(request: Request, error: Exception) -> Response:
    return _error(500, "fault", "the node failed to respond; the reason is in its log")

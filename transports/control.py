"""The manager's REST API for a game's backend, asynchronous. Needs the extra `rest` (httpx), which no adapter does.

    async with RelayManager("https://relay.example.com", api_key) as manager:
        session = await manager.create_session([{"ip": "198.51.100.7"}, {"ip": "203.0.113.9"}])
        connection = await connect(**connect_arguments(session, seat=0))

A session is the dictionary that the API answers with; it holds its players' secrets. An API key belongs into a backend,
never into a game that players have: what a player needs is the result of `connect_arguments`.
"""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

Json = dict[str, Any]


class ManagerError(Exception):
    """The manager answered with an error. `code` is stable, `details` as the API gave them; `status` is HTTP's."""

    def __init__(self, status: int, code: str, message: str, details: Any = None) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.details = details


class ManagerUnreachable(ManagerError):
    """No answer came: status 0, code `unreachable`. Whether the call took effect is unknown."""

    def __init__(self, reason: str) -> None:
        super().__init__(0, "unreachable", reason)


class RelayManager:
    """A client of one manager with one API key, which is sent to it and shown nowhere."""

    def __init__(self, base_url: str, api_key: str, *, timeout: float = 10.0) -> None:
        self._http = httpx.AsyncClient(
            base_url=base_url, headers={"Authorization": f"token {api_key}"}, timeout=timeout, follow_redirects=False
        )

    async def create_session(
        self, users: Sequence[Mapping[str, Any]], *, idempotency_key: str | None = None, **options: Any
    ) -> Json:
        """A session that is ready to use. `users` in seat order, the host first, each with an `ip`, `latencies` or
        coordinates; `options` are the API's further fields, such as topology or filters."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        body = {"users": list(users), **options}
        return await self._call("POST", "/v1/relays/sessions", json=body, headers=headers)

    async def get_session(self, session_id: str) -> Json:
        return await self._call("GET", _session_path(session_id))

    async def delete_session(self, session_id: str) -> None:
        """When this returns nothing is forwarded any more."""
        await self._call("DELETE", _session_path(session_id))

    async def authorize_user(self, session_id: str, user_ip: str, **options: Any) -> Json:
        """Add a player to a live session; the answer holds the new `session_user`."""
        body = {"session_id": session_id, "user_ip": user_ip, **options}
        return await self._call("POST", "/v1/relays/sessions:authorize-user", json=body)

    async def revoke_user(self, session_id: str, authorization_token: int) -> Json:
        """Remove a player. The session, or {} when it was the last one."""
        body = {"session_id": session_id, "authorization_token": authorization_token}
        return await self._call("POST", "/v1/relays/sessions:revoke-user", json=body)

    async def beacons(self) -> list[Json]:
        """Nodes to measure with `asyncio_udp.measure(beacon["host"], beacon["udp_port"])`."""
        answer = await self._call("GET", "/v1/locations/beacons")
        return list(answer["locations"])

    async def aclose(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _call(self, method: str, path: str, **request: Any) -> Json:
        """The JSON object answered, {} for an empty answer. Raises ManagerError."""
        try:
            response = await self._http.request(method, path, **request)
        except httpx.HTTPError as error:
            raise ManagerUnreachable(f"{method} {path}: {type(error).__name__}") from None
        body = _json_object(response)
        if not response.is_success:
            message = str(body.get("message", response.reason_phrase))
            raise ManagerError(response.status_code, str(body.get("code", "unknown")), message, body.get("details"))
        return body


def connect_arguments(session: Mapping[str, Any], *, seat: int) -> Json:
    """What the player of `seat` passes to `asyncio_udp.connect` or `blocking_udp.connect`, from a session or from the
    answer of `authorize_user`. Raises KeyError when the session has no such seat, no relay yet, or the dialect off."""
    user = _user(session, seat, "connect_token")
    return {
        **_relay_address(session["relay"], seat),
        "connect_token": user["connect_token"],
        "seat_key": user["seat_key"],
    }


def edgegap_arguments(session: Mapping[str, Any], *, seat: int) -> Json:
    """The same for `edgegap.EdgegapHost` (seat 0) and `edgegap.EdgegapClient`."""
    user = _user(session, seat, "authorization_token")
    return {
        **_relay_address(session["relay"], seat),
        "user_token": user["authorization_token"],
        "session_token": session["authorization_token"],
    }


def _user(session: Mapping[str, Any], seat: int, token: str) -> Mapping[str, Any]:
    users = session.get("session_users") or [session.get("session_user")]
    for user in users:
        if user and user.get("seat") == seat and user.get(token) is not None and session.get("relay"):
            found: Mapping[str, Any] = user
            return found
    raise KeyError(f"seat {seat}: no {token}, or no relay")


def _relay_address(relay: Mapping[str, Any], seat: int) -> Json:
    role = "server" if seat == 0 else "client"
    return {"host": relay["ip"], "port": relay["ports"][role]["port"]}


def _session_path(session_id: str) -> str:
    return f"/v1/relays/sessions/{quote(session_id, safe='')}"


def _json_object(response: httpx.Response) -> Json:
    try:
        body = response.json() if response.content else {}
    except ValueError:
        body = {}
    return body if isinstance(body, dict) else {}

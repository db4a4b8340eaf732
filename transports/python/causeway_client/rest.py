"""The manager's REST API, asynchronous, for the backend of a game. Needs the extra `rest`.

    async with RelayManager("https://relay.example.com", api_key) as manager:
        session = await manager.create_session([{"ip": "198.51.100.7"}, {"ip": "203.0.113.9"}])
        connection = await connect(**connect_arguments(session, seat=0))

A session is the JSON object of the API's answer. It contains the secrets of all its players, and an API key gives
access to them: keep both in a backend, and pass to each player only the result of `connect_arguments`. A game itself
uses `matchmaking.find_match`, with a key that has no scope but `matchmaker`.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from .rest_errors import ManagerError, ManagerUnreachable
from .rest_requests import Json, open_client, request

__all__ = ["ManagerError", "ManagerUnreachable", "RelayManager", "connect_arguments", "edgegap_arguments"]


class RelayManager:
    """A client of one manager, with one API key.

    If the manager refuses a call temporarily (429, or 503 with Retry-After), the call is repeated when the manager
    allows it, for up to `retry_for` seconds."""

    def __init__(self, base_url: str, api_key: str, *, timeout: float = 10.0, retry_for: float = 60.0) -> None:
        self._retry_for = retry_for
        self._http = open_client(base_url, f"token {api_key}", timeout=timeout)

    async def create_session(
        self, users: Sequence[Mapping[str, Any]], *, idempotency_key: str | None = None, **options: Any
    ) -> Json:
        """Creates a session and returns it, ready to use. `users` are in the order of their seats, the host first, each
        with an `ip`, `latencies` or coordinates. `options` are further fields of the API, such as `topology` or
        `filters`."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        body = {"users": list(users), **options}
        return await self._call("POST", "/v1/relays/sessions", json=body, headers=headers)

    async def get_session(self, session_id: str) -> Json:
        return await self._call("GET", _session_path(session_id))

    async def delete_session(self, session_id: str) -> None:
        """Ends the session. After this returns, no packet of the session is forwarded."""
        await self._call("DELETE", _session_path(session_id))

    async def list_sessions(self, **filters: Any) -> AsyncIterator[Json]:
        """The live sessions, newest first, or the sessions that match the API's `filters`. Sessions that begin or end
        meanwhile cause neither gaps nor duplicates."""
        query = {"limit": 200, **filters}
        while True:
            answer = await self._call("GET", "/v1/relays/sessions", params=query)
            for session in answer["sessions"]:
                yield session
            if answer["next_cursor"] is None:
                return
            query["cursor"] = answer["next_cursor"]

    async def authorize_user(self, session_id: str, user_ip: str, **options: Any) -> Json:
        """Adds a player to a live session. The answer contains the new `session_user`."""
        body = {"session_id": session_id, "user_ip": user_ip, **options}
        return await self._call("POST", "/v1/relays/sessions:authorize-user", json=body)

    async def revoke_user(self, session_id: str, authorization_token: int) -> Json:
        """Removes a player. Returns the session, or {} if this was its last player."""
        body = {"session_id": session_id, "authorization_token": authorization_token}
        return await self._call("POST", "/v1/relays/sessions:revoke-user", json=body)

    async def change_direct_modes(self, session_id: str, **options: Any) -> Json:
        """Changes the `direct_mode` of a running session, and of single `users` ({"seat", "direct_mode"}). Returns the
        session."""
        return await self._call("PATCH", _session_path(session_id), json=options)

    async def list_beacons(self) -> list[Json]:
        """The nodes that a player should measure with `measure_beacons`. `asyncio_udp.as_measurements` converts the
        result for `users[].measurements`."""
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

    async def _call(self, method: str, path: str, **options: Any) -> Json:
        return await request(self._http, method, path, retry_for=self._retry_for, **options)


def connect_arguments(session: Mapping[str, Any], *, seat: int) -> Json:
    """The arguments with which the player of `seat` calls `connect`, from a session or from the answer of
    `authorize_user`. Raises KeyError if the session has no such seat or no relay yet, or does not admit the native
    dialect."""
    user = _user(session, seat, "connect_token")
    return {
        **_relay_address(session["relay"], user),
        "connect_token": user["connect_token"],
        "seat_key": user["seat_key"],
        "peer_keys": user.get("peer_keys") or "",
        "websocket_url": user.get("websocket_url"),
        "offer_key": user.get("offer_key") or "",
        "standby": user.get("standby"),
    }


def edgegap_arguments(session: Mapping[str, Any], *, seat: int) -> Json:
    """The same for `edgegap.EdgegapHost` (seat 0) and `edgegap.EdgegapClient`."""
    user = _user(session, seat, "authorization_token")
    return {
        **_relay_address(session["relay"], user),
        "user_token": user["authorization_token"],
        "session_token": session["authorization_token"],
    }


def one_or_all(addresses: Sequence[str]) -> str | list[str]:
    """The only address, or the list of all: the adapters find out which of several can be reached."""
    return addresses[0] if len(addresses) == 1 else list(addresses)


def _user(session: Mapping[str, Any], seat: int, token: str) -> Mapping[str, Any]:
    users = session.get("session_users") or [session.get("session_user")]
    for user in users:
        if user and user.get("seat") == seat and user.get(token) is not None and session.get("relay"):
            found: Mapping[str, Any] = user
            return found
    raise KeyError(f"seat {seat}: no {token}, or no relay")


def _relay_address(relay: Mapping[str, Any], user: Mapping[str, Any]) -> Json:
    role = "server" if user["seat"] == 0 else "client"
    # Edgegap's own API has only the one address of `relay`.
    return {"host": one_or_all(user.get("relay_ips") or [relay["ip"]]), "port": relay["ports"][role]["port"]}


def _session_path(session_id: str) -> str:
    return f"/v1/relays/sessions/{quote(session_id, safe='')}"

"""The REST APIs of manager and matchmaker, asynchronous. Needs the extra `rest` (httpx), which no adapter does.

    async with RelayManager("https://relay.example.com", api_key) as manager:
        session = await manager.create_session([{"ip": "198.51.100.7"}, {"ip": "203.0.113.9"}])
        connection = await connect(**connect_arguments(session, seat=0))

    found = await find_match("https://relay.example.com/matchmaker", key, "duel", {"elo": 1500}, latencies="beacons")
    found.connection.send(b"hello")

`RelayManager` is for a game's backend, `find_match` for the game itself. A session is the dictionary that the API
answers with; it holds its players' secrets. An API key belongs into a backend, never into a game that players have:
what a player needs is the result of `connect_arguments`. A key with no scope but `matchmaker` may go into a game.
"""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from . import asyncio_udp
from .protocol.probing import Measured

Json = dict[str, Any]
MAX_MEASUREMENTS = 200  # that a ticket may bring
RETRY_AFTER = 1.0  # seconds before a broken stream of events is followed again


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
        """Nodes to measure, all at once, with `asyncio_udp.measure_beacons`; its result goes into `users[]` by
        `asyncio_udp.as_measurements`."""
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
        return await _request(self._http, method, path, **request)


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


# -- find a match ----------------------------------------------------------------------------------


class MatchNotFound(Exception):
    """The ticket was cancelled: `reason` is `expired` when nobody suitable came in time."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class FoundMatch:
    """`assignment` as the matchmaker gave it: `seat`, `is_host`, `players`, `location` and the player's own secrets."""

    connection: asyncio_udp.Connection
    assignment: Json


async def find_match(
    url: str,
    key: str,
    profile: str,
    attributes: Mapping[str, Any] | None = None,
    *,
    latencies: str | None = None,
    search_timeout: float = 600.0,
) -> FoundMatch:
    """From wanting to play to playing. `url` is the matchmaker's base URL; `latencies` names the attribute of the
    profile's latencies rule. The relays are measured first, all at once and for 2 s at most: what they signed goes with
    the ticket, and the relay of the match is chosen by it.

    Raises MatchNotFound, ManagerError, TimeoutError after `search_timeout` seconds, and what `asyncio_udp.connect`
    raises. The ticket is withdrawn when this fails or is cancelled."""
    # The matchmaker sends a comment each 15 s: silence for twice as long is a dead connection.
    limits = httpx.Timeout(10.0, read=30.0)
    async with (
        asyncio.timeout(search_timeout),
        httpx.AsyncClient(base_url=url, headers={"Authorization": key}, timeout=limits) as http,
    ):
        beacons = await _beacons(http)
        measured = await asyncio_udp.measure_beacons(beacons)
        wanted = dict(attributes or {})
        if latencies is not None:
            wanted[latencies] = nearest_by_city(beacons, measured)
        body = {"profile": profile, "attributes": wanted, "measurements": asyncio_udp.as_measurements(measured)}
        ticket = asyncio.create_task(_request(http, "POST", "/tickets", json=body))
        try:
            await asyncio.shield(ticket)  # cut off, nobody would know whether there is a ticket
            assignment = await _assignment(http, str(ticket.result()["id"]))
        except BaseException:
            await _withdraw(http, ticket)
            raise
        return FoundMatch(await asyncio_udp.connect(**assignment_arguments(assignment)), assignment)


def assignment_arguments(assignment: Mapping[str, Any]) -> Json:
    """What the player passes to `asyncio_udp.connect` or `blocking_udp.connect`, from a ticket's assignment."""
    return {
        "host": assignment["public_ip"],
        "port": assignment["ports"]["gameport"]["external"],
        "connect_token": assignment["connect_token"],
        "seat_key": assignment["seat_key"],
    }


async def _beacons(http: httpx.AsyncClient) -> list[Json]:
    """As `asyncio_udp.measure_beacons` wants them."""
    beacons = (await _request(http, "GET", "/locations/beacons"))["beacons"]
    nodes = [{**beacon, **node, "host": node["public_ip"]} for beacon in beacons for node in beacon["nodes"]]
    return one_of_each_city_first(nodes)[:MAX_MEASUREMENTS]


def one_of_each_city_first(beacons: Iterable[Json]) -> list[Json]:
    """Then the second of each, and so on: of a fleet that is too large to be measured whole no city is left out."""
    seen: Counter[str] = Counter()
    turns = []
    for beacon in beacons:
        city = str(beacon["location"]["city"])
        turns.append((seen[city], beacon))
        seen[city] += 1
    return [beacon for _, beacon in sorted(turns, key=lambda turn: turn[0])]


def nearest_by_city(beacons: Iterable[Json], measured: Mapping[str, Measured]) -> dict[str, float]:
    """A city with several relays counts as its nearest."""
    found: dict[str, float] = {}
    for beacon in beacons:
        city, ms = beacon["location"]["city"], measured[beacon["node"]].rtt_ms
        if ms is not None and ms < found.get(city, float("inf")):
            found[city] = ms
    return found


async def _assignment(http: httpx.AsyncClient, ticket_id: str) -> Json:
    """Follows the ticket, over as many streams as it takes."""
    while True:
        try:
            async for name, ticket in _events(http, f"/tickets/{ticket_id}/events"):
                if name == "removed" or ticket["status"] == "CANCELLED":
                    raise MatchNotFound(ticket.get("reason") or "removed")
                if ticket["status"] == "HOST_ASSIGNED":
                    return dict(ticket["assignment"])
        except httpx.HTTPError:
            pass  # a stream begins with the present state: nothing was missed
        await asyncio.sleep(RETRY_AFTER)


async def _events(http: httpx.AsyncClient, path: str) -> AsyncIterator[tuple[str, Json]]:
    """Of server-sent events (HTML Living Standard, 9.2) the fields that the matchmaker sends."""
    name = ""
    async with http.stream("GET", path, headers={"Accept": "text/event-stream"}) as response:
        if response.is_error and response.status_code < 500 and response.status_code != 429:
            await response.aread()
            raise _error(response)
        response.raise_for_status()
        async for line in response.aiter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                yield name, json.loads(value)


async def _withdraw(http: httpx.AsyncClient, ticket: asyncio.Task[Json]) -> None:
    with contextlib.suppress(ManagerError, httpx.HTTPError):  # refused there is none, and any expires by itself
        await asyncio.shield(_request(http, "DELETE", f"/tickets/{(await ticket)['id']}"))


async def _request(http: httpx.AsyncClient, method: str, path: str, **request: Any) -> Json:
    """The JSON object answered, {} for an empty answer. Raises ManagerError."""
    try:
        response = await http.request(method, path, **request)
    except httpx.HTTPError as error:
        raise ManagerUnreachable(f"{method} {path}: {type(error).__name__}") from None
    if not response.is_success:
        raise _error(response)
    return _json_object(response)


def _error(response: httpx.Response) -> ManagerError:
    body = _json_object(response)
    message = str(body.get("message", response.reason_phrase))
    return ManagerError(response.status_code, str(body.get("code", "unknown")), message, body.get("details"))


# -- parts of answers ------------------------------------------------------------------------------


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

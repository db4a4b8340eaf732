"""The REST APIs of manager and matchmaker, asynchronous. Needs the extra `rest` (httpx), which no adapter does.

    async with RelayManager("https://relay.example.com", api_key) as manager:
        session = await manager.create_session([{"ip": "198.51.100.7"}, {"ip": "203.0.113.9"}])
        connection = await connect(**connect_arguments(session, seat=0))

    url = "https://relay.example.com/matchmaker"
    found = await find_match(url, api_key, "duel", {"elo": 1500}, latency_attribute="beacons")
    found.connection.send(b"hello")

`RelayManager` is for a game's backend, `find_match` for the game itself. A session is the dictionary that the API
answers with; it holds its players' secrets. An API key belongs into a backend, never into a game that players have:
what a player needs is the result of `connect_arguments`. A key with no scope but `matchmaker` may go into a game.
"""

import asyncio
import contextlib
import functools
import json
import math
import random
import ssl
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import pairwise
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

try:
    import httpx
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "causeway_client.rest needs httpx: install the extra, as in `pip install 'causeway-client[rest]'`",
        name=error.name,
    ) from error

from . import asyncio_udp
from .protocol.probing import Measurement

Json = dict[str, Any]
MAX_MEASUREMENTS = 200  # that a ticket may bring
RETRY_AFTER = 1.0  # seconds before the first repetition, where the server does not say
RETRY_AFTER_MAX = 10.0  # seconds, of the same
UNREACHABLE_FOR = 30.0  # seconds without an answer that a search outlasts
MAX_RETRY_AFTER = 300.0  # seconds that we wait because a server says so

ADVICE = {  # by code, else by status
    "unreachable": "check the URL, and that the manager runs and can be reached from here",
    "unauthorized": "check the key: it may be mistyped, expired or revoked",
    "scope_missing": "use a key with the scope that this call needs",
    "throttled": "call less often, or wait as Retry-After says",
    "no_relay": "wait for a relay with room, or add one",
    400: "correct what is named here and send it again",
    403: "use a key that may do this",
    404: "check the id: there is no such thing, or it is over",
    409: "read the present state, then decide anew",
    413: "send less at once",
    429: "wait as Retry-After says",
    500: "report it with the manager's log",
    503: "try again in a moment",
}


class ManagerError(Exception):
    """The manager answered with an error. `code` is stable, `details` as the API gave them; `status` is HTTP's.

    `request` is its method and URL without secrets, `advice` what to do next, `retry_after` the seconds after which
    the server wants to be asked again. The text has all of it."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        details: Any = None,
        *,
        request: str = "",
        retry_after: float | None = None,
    ) -> None:
        self.status = status
        self.code = code
        self.details = details
        self.request = request
        self.retry_after = retry_after
        self.advice = ADVICE.get(code) or ADVICE.get(status) or ADVICE[500 if status >= 500 else 400]
        asked = f" [{request}]" if request else ""
        super().__init__(f"{status} {code}: {message}{_problems(details)}{asked} Next: {self.advice}.")

    @property
    def is_temporary(self) -> bool:
        """Nothing was done, and the server may do it later."""
        return self.status == 429 or (self.status == 503 and self.retry_after is not None)


class ManagerUnreachable(ManagerError):
    """No answer came: status 0, code `unreachable`. Whether the call took effect is unknown."""

    def __init__(self, reason: str, *, request: str = "") -> None:
        super().__init__(0, "unreachable", reason, request=request)


def _problems(details: Any) -> str:
    """The fields at fault, as validation lists them: {"users[0].ip": [{"message", "code"}]}."""
    if not isinstance(details, dict):
        return ""
    found = [
        f" {field}: {problem['message']}"
        for field, problems in details.items()
        if isinstance(problems, list)
        for problem in problems
        if isinstance(problem, dict) and "message" in problem
    ]
    return "".join(found[:10])


class RelayManager:
    """A client of one manager with one API key, which is sent to it and shown nowhere.

    A call that the manager refuses for now (429, or 503 with Retry-After) is repeated when it says, for up to
    `retry_for` seconds."""

    def __init__(self, base_url: str, api_key: str, *, timeout: float = 10.0, retry_for: float = 60.0) -> None:
        self._retry_for = retry_for
        self._http = _client(base_url, f"token {api_key}", httpx.Timeout(timeout))

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

    async def list_sessions(self, **filters: Any) -> AsyncIterator[Json]:
        """The live sessions, newest first, or those that the API's `filters` ask for. None is left out or given twice
        when others begin or end meanwhile."""
        query = {"limit": 200, **filters}
        while True:
            answer = await self._call("GET", "/v1/relays/sessions", params=query)
            for session in answer["sessions"]:
                yield session
            if answer["next_cursor"] is None:
                return
            query["cursor"] = answer["next_cursor"]

    async def authorize_user(self, session_id: str, user_ip: str, **options: Any) -> Json:
        """Add a player to a live session; the answer holds the new `session_user`."""
        body = {"session_id": session_id, "user_ip": user_ip, **options}
        return await self._call("POST", "/v1/relays/sessions:authorize-user", json=body)

    async def revoke_user(self, session_id: str, authorization_token: int) -> Json:
        """Remove a player. The session, or {} when it was the last one."""
        body = {"session_id": session_id, "authorization_token": authorization_token}
        return await self._call("POST", "/v1/relays/sessions:revoke-user", json=body)

    async def list_beacons(self) -> list[Json]:
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
        return await _request(self._http, method, path, retry_for=self._retry_for, **request)


def connect_arguments(session: Mapping[str, Any], *, seat: int) -> Json:
    """What the player of `seat` passes to `asyncio_udp.connect` or `blocking_udp.connect`, from a session or from the
    answer of `authorize_user`. Raises KeyError when the session has no such seat, no relay yet, or the dialect off."""
    user = _user(session, seat, "connect_token")
    return {
        **_relay_address(session["relay"], user),
        "connect_token": user["connect_token"],
        "seat_key": user["seat_key"],
    }


def edgegap_arguments(session: Mapping[str, Any], *, seat: int) -> Json:
    """The same for `edgegap.EdgegapHost` (seat 0) and `edgegap.EdgegapClient`."""
    user = _user(session, seat, "authorization_token")
    return {
        **_relay_address(session["relay"], user),
        "user_token": user["authorization_token"],
        "session_token": session["authorization_token"],
    }


# -- find a match ----------------------------------------------------------------------------------


class MatchNotFound(Exception):
    """The ticket was cancelled: `reason` is `expired` when no suitable players came in time."""

    def __init__(self, reason: str) -> None:
        advice = "Next: search again, or with a profile that asks for less."
        text = "expired: no suitable players came in time." if reason == "expired" else f"{reason}: the ticket is gone."
        super().__init__(f"{text} {advice}")
        self.reason = reason


@dataclass(frozen=True)
class FoundMatch:
    """`assignment` as the matchmaker gave it: `seat`, `is_host`, `players`, `location` and the player's own secrets."""

    connection: asyncio_udp.Connection
    assignment: Json


async def find_match(
    url: str,
    api_key: str,
    profile: str,
    attributes: Mapping[str, Any] | None = None,
    *,
    latency_attribute: str | None = None,
    search_timeout: float = 600.0,
) -> FoundMatch:
    """Searches for a match and connects to its relay. `url` is the matchmaker's base URL; `latency_attribute` is the
    name of the attribute that the profile's `latencies` rule reads. The relays are measured first, all at once, for at
    most 2 s; the signed measurements go with the ticket, and the relay of the match is chosen by them. If no relay
    answers, they are measured again, unless the profile accepts players without measurements.

    If the matchmaker refuses a request temporarily (429, 503), it is repeated when the matchmaker allows it; a
    matchmaker that has answered before may be unreachable for 30 s. Raises MatchNotFound, ManagerError, TimeoutError
    after `search_timeout` seconds, and what `asyncio_udp.connect` raises. The ticket is withdrawn if the search fails
    or is cancelled."""
    # The matchmaker sends a comment each 15 s: silence for twice as long is a dead connection.
    limits = httpx.Timeout(10.0, read=30.0)
    search = _Search(profile, dict(attributes or {}), latency_attribute)
    try:
        async with (
            asyncio.timeout(search_timeout),
            _client(url, api_key, limits) as http,
        ):
            assignment = await search.run(http)
            return FoundMatch(await asyncio_udp.connect(**assignment_arguments(assignment)), assignment)
    except TimeoutError:
        raise TimeoutError(f"No match within {search_timeout:g} s: {search.state}") from None


class _Search:
    """One call of `find_match`. `state` says what it waits for and what to do about it."""

    def __init__(self, profile: str, attributes: Json, latency_attribute: str | None) -> None:
        self._profile = profile
        self._attributes = attributes
        self._latency_attribute = latency_attribute
        self.state = "the matchmaker was not reached. Next: check its URL."

    async def run(self, http: httpx.AsyncClient) -> Json:
        """The assignment."""
        ticket = await self._ticket(http)
        self.state = "no suitable players came. Next: search again, or with a profile that asks for less."
        try:
            return await _assignment(http, ticket)
        except BaseException:
            await _withdraw(http, ticket)
            raise

    async def _ticket(self, http: httpx.AsyncClient) -> str:
        """The id of one that the matchmaker has taken. Measures until it takes what was found."""
        attempt = 0
        while True:
            beacons = await _beacons(http)
            # Longer each time: a machine that is busy answers late.
            measured = await asyncio_udp.measure_beacons(beacons, timeout=min(2.0 + attempt, 5.0))
            nearest = nearest_by_city(beacons, measured)
            self.state = "the matchmaker took no ticket. Next: see its limits, and whether it is well."
            try:
                return await self._post(http, nearest, asyncio_udp.as_measurements(measured))
            except ManagerError as error:
                if nearest or not self._lacks_measurements(error):
                    raise
            self.state = f"none of {len(beacons)} relays answered. Next: let UDP to their beacons' ports through."
            await asyncio.sleep(_pause(None, attempt))
            attempt += 1

    def _lacks_measurements(self, error: ManagerError) -> bool:
        fields = error.details if isinstance(error.details, dict) else {}
        return error.status == 400 and f"attributes.{self._latency_attribute}" in fields

    async def _post(self, http: httpx.AsyncClient, nearest: dict[str, float], measurements: list[Json]) -> str:
        measured = {self._latency_attribute: nearest} if self._latency_attribute is not None else {}
        body = {
            "profile": self._profile,
            "attributes": {**self._attributes, **measured},
            "measurements": measurements,
        }
        headers = {"Idempotency-Key": uuid.uuid4().hex}  # asked again, it is one ticket all the same

        async def post() -> Json:
            posting = asyncio.create_task(_request_once(http, "POST", "/tickets", json=body, headers=headers))
            try:
                return await asyncio.shield(posting)  # cut off, it would be unknown whether there is a ticket
            except asyncio.CancelledError:
                with contextlib.suppress(ManagerError):
                    await _withdraw(http, str((await posting)["id"]))
                raise

        return str((await _repeated(post, retry_for=math.inf, unreachable_for=UNREACHABLE_FOR))["id"])


def assignment_arguments(assignment: Mapping[str, Any]) -> Json:
    """What the player passes to `asyncio_udp.connect` or `blocking_udp.connect`, from a ticket's assignment."""
    return {
        "host": _one_or_all(assignment.get("relay_ips") or [assignment["public_ip"]]),
        "port": assignment["ports"]["gameport"]["external"],
        "connect_token": assignment["connect_token"],
        "seat_key": assignment["seat_key"],
    }


async def _beacons(http: httpx.AsyncClient) -> list[Json]:
    """As `asyncio_udp.measure_beacons` wants them."""
    beacons = (await _request(http, "GET", "/locations/beacons", retry_for=math.inf))["beacons"]
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


def nearest_by_city(beacons: Iterable[Json], measured: Mapping[str, Measurement]) -> dict[str, float]:
    """A city with several relays counts as its nearest."""
    found: dict[str, float] = {}
    for beacon in beacons:
        city, ms = beacon["location"]["city"], measured[beacon["node"]].rtt_ms
        if ms is not None and ms < found.get(city, float("inf")):
            found[city] = ms
    return found


async def _assignment(http: httpx.AsyncClient, ticket_id: str) -> Json:
    """Follows the ticket, over as many streams as it takes."""
    attempt = 0
    while True:
        retry_after = None
        try:
            async for name, ticket in _events(http, f"/tickets/{ticket_id}/events"):
                attempt = 0
                if name == "removed" or ticket["status"] == "CANCELLED":
                    raise MatchNotFound(ticket.get("reason") or "removed")
                if ticket["status"] == "HOST_ASSIGNED":
                    return dict(ticket["assignment"])
        except httpx.HTTPError:
            pass  # a stream begins with the present state: nothing was missed
        except ManagerError as error:
            if error.status < 500 and error.status != 429:
                raise
            retry_after = error.retry_after
        await asyncio.sleep(_pause(retry_after, attempt))
        attempt += 1


async def _events(http: httpx.AsyncClient, path: str) -> AsyncIterator[tuple[str, Json]]:
    """Of server-sent events (HTML Living Standard, 9.2) the fields that the matchmaker sends."""
    name = ""
    async with http.stream("GET", path, headers={"Accept": "text/event-stream"}) as response:
        if not response.is_success:
            await response.aread()
            raise _error(response)
        async for line in response.aiter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                yield name, json.loads(value)


async def _withdraw(http: httpx.AsyncClient, ticket_id: str) -> None:
    with contextlib.suppress(ManagerError, httpx.HTTPError):  # refused there is none, and any expires by itself
        await asyncio.shield(_request(http, "DELETE", f"/tickets/{ticket_id}", retry_for=5.0))


def _client(base_url: str, authorization: str, timeout: httpx.Timeout) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=base_url,
        headers={"Authorization": authorization},
        timeout=timeout,
        follow_redirects=False,
        verify=_certificate_authorities(),
    )


@functools.cache
def _certificate_authorities() -> ssl.SSLContext:
    """Read once for the process: reading them takes 20 ms of CPU time, which httpx would spend for each client."""
    return httpx.create_ssl_context()


async def _request(http: httpx.AsyncClient, method: str, path: str, *, retry_for: float = 0.0, **request: Any) -> Json:
    """The JSON object answered, {} for an empty answer; asked again for up to `retry_for` seconds while the server
    refuses for now. Raises ManagerError."""
    return await _repeated(lambda: _request_once(http, method, path, **request), retry_for=retry_for)


async def _repeated(call: Callable[[], Awaitable[Json]], *, retry_for: float, unreachable_for: float = 0.0) -> Json:
    """What the call returns in the end. Raises ManagerError. `unreachable_for`: seconds for which it is repeated when
    no answer comes, where it may be done twice."""
    started, attempt = time.monotonic(), 0
    while True:
        try:
            return await call()
        except ManagerError as error:
            patience = unreachable_for if error.status == 0 else retry_for if error.is_temporary else 0.0
            pause = _pause(error.retry_after, attempt)
            if time.monotonic() + pause - started > patience:
                raise
        await asyncio.sleep(pause)
        attempt += 1


def _pause(retry_after: float | None, attempt: int) -> float:
    """Seconds until the next try: as the server said or twice as long each time, and a part more by chance, so that
    clients that were refused together do not come back together."""
    least = min(RETRY_AFTER * 2 ** min(attempt, 10), RETRY_AFTER_MAX) if retry_after is None else retry_after
    return least + random.uniform(0.0, max(RETRY_AFTER, least / 4))  # noqa: S311 - it is no secret


async def _request_once(http: httpx.AsyncClient, method: str, path: str, **request: Any) -> Json:
    try:
        response = await http.request(method, path, **request)
    except httpx.HTTPError as error:
        asked = f"{method} {_shown(http.base_url, path)}"
        raise ManagerUnreachable(f"No answer ({type(error).__name__}).", request=asked) from None
    if not response.is_success:
        raise _error(response)
    return _json_object(response)


def _error(response: httpx.Response) -> ManagerError:
    body = _json_object(response)
    return ManagerError(
        response.status_code,
        str(body.get("code", "unknown")),
        str(body.get("message", response.reason_phrase)),
        body.get("details"),
        request=f"{response.request.method} {_shown(response.request.url)}",
        retry_after=_retry_after(response),
    )


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds, of either form of the header (RFC 9110, 10.2.3)."""
    value = response.headers.get("Retry-After", "").strip()
    try:
        if value.isascii() and value.isdigit():
            seconds = float(value)
        else:
            seconds = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)


def _shown(url: httpx.URL, path: str = "") -> str:
    """Without what may be secret: user and password, query, and the ids of tickets."""
    parts = f"{url.path.rstrip('/')}{path.partition('?')[0]}".split("/")
    shown = ["{id}" if before in ("tickets", "members") else part for before, part in pairwise(["", *parts])]
    port = f":{url.port}" if url.port else ""
    host = f"[{url.host}]" if ":" in url.host else url.host
    return f"{url.scheme}://{host}{port}{'/'.join(shown)}"


# -- parts of answers ------------------------------------------------------------------------------


def _user(session: Mapping[str, Any], seat: int, token: str) -> Mapping[str, Any]:
    users = session.get("session_users") or [session.get("session_user")]
    for user in users:
        if user and user.get("seat") == seat and user.get(token) is not None and session.get("relay"):
            found: Mapping[str, Any] = user
            return found
    raise KeyError(f"seat {seat}: no {token}, or no relay")


def _relay_address(relay: Mapping[str, Any], user: Mapping[str, Any]) -> Json:
    role = "server" if user["seat"] == 0 else "client"
    # Edgegap's own API knows one address for all.
    return {"host": _one_or_all(user.get("relay_ips") or [relay["ip"]]), "port": relay["ports"][role]["port"]}


def _one_or_all(addresses: Sequence[str]) -> str | list[str]:
    """Several where the player may have both families: the adapters find out which of them works."""
    return addresses[0] if len(addresses) == 1 else list(addresses)


def _session_path(session_id: str) -> str:
    return f"/v1/relays/sessions/{quote(session_id, safe='')}"


def _json_object(response: httpx.Response) -> Json:
    try:
        body = response.json() if response.content else {}
    except ValueError:
        body = {}
    return body if isinstance(body, dict) else {}

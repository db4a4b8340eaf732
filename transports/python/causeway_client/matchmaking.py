"""Finding a match, for a game: from the search for players to a connection. Needs the extra `rest`.

    url = "https://relay.example.com/matchmaker"
    found = await find_match(url, api_key, "duel", {"elo": 1500}, latency_attribute="beacons")
    found.connection.send(b"hello")

The key needs no scope but `matchmaker`, and may be part of a game.
"""

import asyncio
import contextlib
import math
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from . import asyncio_udp, netcheck
from .protocol.probing import Measurement
from .rest import one_or_all
from .rest_errors import ManagerError, MatchNotFound
from .rest_requests import (
    Client,
    HTTPError,
    Json,
    open_client,
    pause_seconds,
    repeated,
    request,
    request_once,
    server_sent_events,
)

__all__ = ["FoundMatch", "ManagerError", "MatchNotFound", "assignment_arguments", "find_match"]

MAX_MEASUREMENTS = 200  # the limit of a ticket
NAT_CLASS = "nat_class"  # the attribute of the rule of this name
UNREACHABLE_FOR = 30.0  # seconds without an answer after which a search ends


@dataclass(frozen=True)
class FoundMatch:
    """The connection, and the matchmaker's `assignment` with `seat`, `is_host`, `players`, `location` and this player's
    secrets."""

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
    answers, they are measured again, unless the profile accepts players without measurements. If the profile has the
    rule `nat_class` and the attributes do not have it, the class of the player's NAT is determined as well.

    If the matchmaker refuses a request temporarily (429, 503), it is repeated when the matchmaker allows it; a
    matchmaker that has answered before may be unreachable for 30 s. Raises MatchNotFound, ManagerError, TimeoutError
    after `search_timeout` seconds, and what `asyncio_udp.connect` raises. The ticket is withdrawn if the search fails
    or is cancelled."""
    search = _Search(profile, dict(attributes or {}), latency_attribute)
    try:
        async with (
            asyncio.timeout(search_timeout),
            # The matchmaker sends a comment every 15 s. Without any for twice as long, the connection is lost.
            open_client(url, api_key, timeout=10.0, read_timeout=30.0) as http,
        ):
            assignment = await search.run(http)
            return FoundMatch(await asyncio_udp.connect(**assignment_arguments(assignment)), assignment)
    except TimeoutError:
        raise TimeoutError(f"No match within {search_timeout:g} s: {search.state}") from None


class _Search:
    """One call of `find_match`. `state` describes what it waits for, and what to do about it."""

    def __init__(self, profile: str, attributes: Json, latency_attribute: str | None) -> None:
        self._profile = profile
        self._attributes = attributes
        self._latency_attribute = latency_attribute
        self.state = "the matchmaker could not be reached. Next: check its URL."

    async def run(self, http: Client) -> Json:
        """The assignment."""
        ticket = await self._create_ticket(http)
        self.state = "no suitable players were found. Next: search again, or with a profile that has fewer constraints."
        try:
            return await _assignment(http, ticket)
        except BaseException:
            await _withdraw(http, ticket)
            raise

    async def _create_ticket(self, http: Client) -> str:
        """The id of a ticket. Measures until the matchmaker accepts the measurements."""
        attempt = 0
        while True:
            beacons = await _beacons(http)
            # Each attempt may take longer, because a busy machine answers late.
            measured = await asyncio_udp.measure_beacons(beacons, timeout=min(2.0 + attempt, 5.0))
            nearest = nearest_by_city(beacons, measured)
            self.state = "the matchmaker accepted no ticket. Next: check its limits and its health."
            try:
                return await self._post_classified(http, beacons, nearest, asyncio_udp.as_measurements(measured))
            except ManagerError as error:
                if nearest or not self._lacks(error, self._latency_attribute):
                    raise
            self.state = f"none of {len(beacons)} relays answered. Next: allow UDP to the ports of their beacons."
            await asyncio.sleep(pause_seconds(None, attempt))
            attempt += 1

    def _lacks(self, error: ManagerError, attribute: str | None) -> bool:
        """Whether the ticket was refused because of this attribute, which the caller has not given."""
        fields = error.details if isinstance(error.details, dict) else {}
        return error.status == 400 and f"attributes.{attribute}" in fields and attribute not in self._attributes

    async def _post_classified(
        self, http: Client, beacons: list[Json], nearest: dict[str, float], measurements: list[Json]
    ) -> str:
        """Adds the class of the NAT if the matchmaker asks for it."""
        try:
            return await self._post(http, nearest, measurements)
        except ManagerError as error:
            if not self._lacks(error, NAT_CLASS):
                raise
        nodes = [(str(beacon["host"]), int(beacon["udp_port"])) for beacon in beacons]
        self._attributes[NAT_CLASS] = await netcheck.nat_class(nodes)
        return await self._post(http, nearest, measurements)

    async def _post(self, http: Client, nearest: dict[str, float], measurements: list[Json]) -> str:
        measured = {self._latency_attribute: nearest} if self._latency_attribute is not None else {}
        body = {
            "profile": self._profile,
            "attributes": {**self._attributes, **measured},
            "measurements": measurements,
        }
        headers = {"Idempotency-Key": uuid.uuid4().hex}  # a repeated request creates no second ticket

        async def post() -> Json:
            posting = asyncio.create_task(request_once(http, "POST", "/tickets", json=body, headers=headers))
            try:
                # A request that is cancelled might leave a ticket whose id is unknown.
                return await asyncio.shield(posting)
            except asyncio.CancelledError:
                with contextlib.suppress(ManagerError):
                    await _withdraw(http, str((await posting)["id"]))
                raise

        return str((await repeated(post, retry_for=math.inf, unreachable_for=UNREACHABLE_FOR))["id"])


def assignment_arguments(assignment: Mapping[str, Any]) -> Json:
    """The arguments with which the player calls `connect`, from the assignment of a ticket."""
    return {
        "host": one_or_all(assignment.get("relay_ips") or [assignment["public_ip"]]),
        "port": assignment["ports"]["gameport"]["external"],
        "connect_token": assignment["connect_token"],
        "seat_key": assignment["seat_key"],
        "peer_keys": assignment.get("peer_keys") or "",
        "websocket_url": assignment.get("websocket_url"),
        "offer_key": assignment.get("offer_key") or "",
        "standby": assignment.get("standby"),
    }


def one_of_each_city_first(beacons: Iterable[Json]) -> list[Json]:
    """The first beacon of each city, then the second of each, and so on: if there are too many beacons to measure all
    of them, no city is left out."""
    seen: Counter[str] = Counter()
    ranks = []
    for beacon in beacons:
        city = str(beacon["location"]["city"])
        ranks.append((seen[city], beacon))
        seen[city] += 1
    return [beacon for _, beacon in sorted(ranks, key=lambda rank: rank[0])]


def nearest_by_city(beacons: Iterable[Json], measured: Mapping[str, Measurement]) -> dict[str, float]:
    """The shortest round trip to any relay of each city, in milliseconds."""
    found: dict[str, float] = {}
    for beacon in beacons:
        city, rtt_ms = beacon["location"]["city"], measured[beacon["node"]].rtt_ms
        if rtt_ms is not None and rtt_ms < found.get(city, math.inf):
            found[city] = rtt_ms
    return found


async def _beacons(http: Client) -> list[Json]:
    """The matchmaker's beacons in the form that `asyncio_udp.measure_beacons` expects."""
    beacons = (await request(http, "GET", "/locations/beacons", retry_for=math.inf))["beacons"]
    nodes = [{**beacon, **node, "host": node["public_ip"]} for beacon in beacons for node in beacon["nodes"]]
    return one_of_each_city_first(nodes)[:MAX_MEASUREMENTS]


async def _assignment(http: Client, ticket_id: str) -> Json:
    """Follows the ticket until it is assigned; opens the stream of its events again when the stream ends."""
    attempt = 0
    while True:
        retry_after = None
        try:
            async for name, ticket in server_sent_events(http, f"/tickets/{ticket_id}/events"):
                attempt = 0
                if name == "removed" or ticket["status"] == "CANCELLED":
                    raise MatchNotFound(ticket.get("reason") or "removed")
                if ticket["status"] == "HOST_ASSIGNED":
                    return dict(ticket["assignment"])
        except HTTPError:
            pass  # each stream begins with the current state, so no event is lost
        except ManagerError as error:
            if error.status < 500 and error.status != 429:
                raise
            retry_after = error.retry_after
        await asyncio.sleep(pause_seconds(retry_after, attempt))
        attempt += 1


async def _withdraw(http: Client, ticket_id: str) -> None:
    # If this fails, the ticket does not exist or expires without further action.
    with contextlib.suppress(ManagerError, HTTPError):
        await asyncio.shield(request(http, "DELETE", f"/tickets/{ticket_id}", retry_for=5.0))

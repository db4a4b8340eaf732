"""`find_match` against a server with the answers of each test. tests/flows/test_matchmaking.py uses real
servers."""

import asyncio
import base64
import json
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from causeway_client import matchmaking, rest_requests
from causeway_client.matchmaking import MatchNotFound, assignment_arguments, find_match
from causeway_client.protocol.probing import Measurement
from causeway_client.protocol.proofs import decode_proof, proof_key
from causeway_client.rest_errors import ManagerError, ManagerUnreachable
from tests.support.node_process import node_process

ASSIGNMENT = {
    "public_ip": "203.0.113.9",
    "ports": {"gameport": {"external": 31001}},
    "connect_token": "dG9rZW4=",
    "seat_key": "a2V5",
}


def event(name: str, **ticket: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps(ticket)}\n\n".encode()


class Matchmaker:
    """Keeps the requests; each stream of events is the next of `streams`, and ends where its bytes do."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, Any]] = []
        self.refusal: tuple[int, dict[str, Any]] | None = None
        self.headers: list[dict[str, str]] = []  # of the requests
        self.busy: list[dict[str, str]] = []  # headers of answers 429 that come first
        self.streams: list[bytes] = []
        self.beacons: list[dict[str, Any]] = []
        self.may_answer_tickets = threading.Event()
        self.may_answer_tickets.set()
        matchmaker = self

        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                matchmaker.requests.append((self.command, self.path, json.loads(body) if body else None))
                matchmaker.headers.append(dict(self.headers))
                more = matchmaker.busy.pop(0) if matchmaker.busy else None
                status, content = (429, b"{}") if more is not None else matchmaker.answer(self.command, self.path)
                self.send_response(status)
                for name, value in (more or {}).items():
                    self.send_header(name, value)
                if self.path.endswith("/events"):
                    self.send_header("Content-Type", "text/event-stream")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_DELETE = handle_any

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, method: str, path: str) -> tuple[int, bytes]:
        if path.endswith("/events"):
            return (200, self.streams.pop(0)) if self.streams else (503, b"{}")
        if path.endswith("/beacons"):
            return 200, json.dumps({"beacons": self.beacons}).encode()
        if method == "DELETE":
            return 204, b""
        if self.refusal:
            return self.refusal[0], json.dumps(self.refusal[1]).encode()
        self.may_answer_tickets.wait(10)
        return 201, b'{"id": "ticket1"}'

    def withdrawn(self) -> bool:
        return ("DELETE", "/tickets/ticket1", None) in self.requests


@pytest.fixture
def matchmaker(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rest_requests, "RETRY_AFTER", 0.01)
    matchmaker = Matchmaker()
    yield matchmaker
    matchmaker.server.shutdown()
    matchmaker.server.server_close()


def city(*nodes: tuple[str, int]) -> dict[str, Any]:
    """A beacon of the matchmaker's answer, of these nodes on this machine and their ports."""
    found = [{"node": name, "public_ip": "127.0.0.1", "udp_port": port} for name, port in nodes]
    return {**found[0], "location": {"city": "Frankfurt"}, "nodes": found}


async def test_nat_class_is_sent_once_the_matchmaker_asks_for_it(matchmaker: Matchmaker) -> None:
    matchmaker.streams = [event("status", id="ticket1", status="CANCELLED", reason="enough")]
    details = {"attributes.nat_class": [{"message": "This attribute is required.", "code": "required"}]}
    matchmaker.refusal = (400, {"message": "No.", "code": "invalid", "details": details})
    with pytest.raises(ManagerError):
        await find_match(matchmaker.url, "key", "duel")
    asked = [body["attributes"] for method, path, body in matchmaker.requests if method == "POST"]
    assert asked == [{}, {"nat_class": "udp_blocked"}], "there is no relay, so no answer"


async def test_a_nat_class_that_the_game_gives_is_not_replaced(matchmaker: Matchmaker) -> None:
    matchmaker.refusal = (400, {"message": "No.", "code": "invalid", "details": {"attributes.nat_class": []}})
    with pytest.raises(ManagerError):
        await find_match(matchmaker.url, "key", "duel", {"nat_class": "unheard_of"})
    assert [method for method, *_ in matchmaker.requests].count("POST") == 1


async def test_refused_ticket_is_a_typed_error(matchmaker: Matchmaker) -> None:
    matchmaker.refusal = (400, {"message": "No.", "code": "invalid", "details": {"attributes.elo": []}})
    with pytest.raises(ManagerError) as raised:
        await find_match(matchmaker.url, "key", "duel", {"elo": "x"})
    assert (raised.value.status, raised.value.code, raised.value.details) == (400, "invalid", {"attributes.elo": []})
    asked = {"profile": "duel", "attributes": {"elo": "x"}, "measurements": []}
    assert matchmaker.requests == [("GET", "/locations/beacons", None), ("POST", "/tickets", asked)]


async def test_an_unreachable_matchmaker_is_a_typed_error() -> None:
    with pytest.raises(ManagerUnreachable):
        await find_match("http://127.0.0.1:9", "key", "duel")


async def test_a_temporarily_refused_request_is_repeated_at_the_time_that_the_server_names(
    matchmaker: Matchmaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beacons, ticket and stream, with both forms of the header and without it; the ticket under one key."""
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def noting(seconds: float, *more: Any) -> Any:
        pauses.append(seconds)
        return await sleep(0, *more)

    monkeypatch.setattr(rest_requests.asyncio, "sleep", noting)
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
    matchmaker.busy = [{"Retry-After": "20"}]
    cancelled = event("status", status="CANCELLED", reason="expired")
    matchmaker.streams = [cancelled]
    answer = matchmaker.answer

    def busy_once(method: str, path: str) -> tuple[int, bytes]:
        found = answer(method, path)
        if (method, path) == ("GET", "/locations/beacons"):
            matchmaker.busy = [{"Retry-After": later}, {}]
        elif (method, path) == ("POST", "/tickets"):
            matchmaker.busy = [{"Retry-After": "0"}]
        return found

    monkeypatch.setattr(matchmaker, "answer", busy_once)
    with pytest.raises(MatchNotFound):
        await find_match(matchmaker.url, "key", "duel")
    [first, second, third, fourth] = [seconds for seconds in pauses if seconds]
    assert 20 <= first <= 25
    assert 35 <= second <= 50
    assert third < 1 and fourth < 1
    posts = [
        sent for (method, *_), sent in zip(matchmaker.requests, matchmaker.headers, strict=True) if method == "POST"
    ]
    assert len(posts) == 3
    assert len({sent["Idempotency-Key"] for sent in posts}) == 1


async def test_who_cannot_be_measured_is_measured_again(matchmaker: Matchmaker) -> None:
    """A relay that starts to answer only after the matchmaker refused a ticket without measurements."""
    matchmaker.streams = [event("status", status="CANCELLED", reason="expired")]
    empty = {"message": "No.", "code": "invalid", "details": {"attributes.pings": [{"message": "is empty"}]}}
    matchmaker.refusal = (400, empty)
    with node_process() as relay:
        matchmaker.beacons = [city(("fra-1", 9))]
        search = asyncio.create_task(find_match(matchmaker.url, "key", "duel", latency_attribute="pings"))
        async with asyncio.timeout(30):
            while not any(method == "POST" for method, *_ in matchmaker.requests):
                await asyncio.sleep(0.01)
            matchmaker.refusal, matchmaker.beacons = None, [city(("fra-1", relay.client_port))]
            with pytest.raises(MatchNotFound):
                await search
    asked = [body for method, path, body in matchmaker.requests if (method, path) == ("POST", "/tickets")]
    assert asked[0]["attributes"] == {"pings": {}}
    assert asked[-1]["attributes"]["pings"]["Frankfurt"] > 0


async def test_a_search_timeout_reports_what_was_missing(matchmaker: Matchmaker) -> None:
    matchmaker.refusal = (400, {"message": "No.", "code": "invalid", "details": {"attributes.pings": []}})
    matchmaker.beacons = [city(("fra-1", 9))]
    with pytest.raises(TimeoutError, match=r"none of 1 relays answered\. Next: allow UDP"):
        await find_match(matchmaker.url, "key", "duel", latency_attribute="pings", search_timeout=4)


async def test_a_ticket_that_is_refused_for_anything_else_is_not_sent_again(matchmaker: Matchmaker) -> None:
    matchmaker.refusal = (400, {"message": "No.", "code": "invalid", "details": {"attributes.elo": []}})
    with pytest.raises(ManagerError):
        await find_match(matchmaker.url, "key", "duel", latency_attribute="pings")
    assert [method for method, *_ in matchmaker.requests] == ["GET", "POST"]


async def test_stream_that_breaks_is_followed_again(matchmaker: Matchmaker) -> None:
    searching = event("status", status="SEARCHING")
    cancelled = event("status", status="CANCELLED", reason="expired")
    matchmaker.streams = [searching, b"", b": still here\n\n" + searching + cancelled]
    with pytest.raises(MatchNotFound, match="expired"):
        await find_match(matchmaker.url, "key", "duel")
    assert not matchmaker.streams


async def test_ticket_that_was_removed_is_no_match(matchmaker: Matchmaker) -> None:
    matchmaker.streams = [event("removed", id="ticket1")]
    with pytest.raises(MatchNotFound, match="removed"):
        await find_match(matchmaker.url, "key", "duel")


async def test_ticket_is_withdrawn_when_time_is_up(matchmaker: Matchmaker) -> None:
    with pytest.raises(TimeoutError):
        await find_match(matchmaker.url, "key", "duel", search_timeout=2)  # long enough to have made the ticket
    assert matchmaker.withdrawn()


async def test_ticket_is_withdrawn_when_cancelled_before_it_was_answered(matchmaker: Matchmaker) -> None:
    matchmaker.may_answer_tickets.clear()
    search = asyncio.create_task(find_match(matchmaker.url, "key", "duel"))
    async with asyncio.timeout(10):
        while not any(method == "POST" for method, *_ in matchmaker.requests):
            await asyncio.sleep(0.01)
    search.cancel()
    await asyncio.sleep(0)
    matchmaker.may_answer_tickets.set()
    with pytest.raises(asyncio.CancelledError):
        await search
    assert matchmaker.withdrawn()


async def test_relays_are_measured_and_go_with_the_ticket_as_they_signed(matchmaker: Matchmaker) -> None:
    """A relay at the one port; nothing listens at the other."""
    matchmaker.streams = [event("status", status="CANCELLED", reason="expired")]
    with node_process() as relay:
        matchmaker.beacons = [city(("fra-1", relay.client_port), ("fra-2", 9))]
        with pytest.raises(MatchNotFound):
            await find_match(matchmaker.url, "key", "duel", latency_attribute="pings")
    [asked] = [body for method, path, body in matchmaker.requests if (method, path) == ("POST", "/tickets")]
    [found] = asked["measurements"]
    assert found["node"] == "fra-1"
    assert asked["attributes"] == {"pings": {"Frankfurt": pytest.approx(found["rtt_ms"], abs=0.001)}}
    proof = decode_proof(base64.urlsafe_b64decode(found["proof"]))
    assert proof.is_signed_by(proof_key(relay.token_key[1]))
    assert 0 < proof.round_trip < 1e6


def test_of_a_large_fleet_no_city_is_left_out() -> None:
    beacons = [{"node": str(n), "location": {"city": city}} for n, city in enumerate("AAABBC")]
    assert "".join(beacon["location"]["city"] for beacon in matchmaking.one_of_each_city_first(beacons)) == "ABCABA"


def test_nearest_relay_of_a_city_counts() -> None:
    beacons = [{"node": str(n), "location": {"city": "Frankfurt"}} for n in range(4)]
    measured = {str(n): Measurement(ms, 0.0, 0.0) for n, ms in enumerate((30.0, 10.0, None, 20.0))}
    assert matchmaking.nearest_by_city(beacons, measured) == {"Frankfurt": 10.0}


def test_assignment_gives_what_connect_wants() -> None:
    assert assignment_arguments(ASSIGNMENT) == {
        "host": "203.0.113.9",
        "port": 31001,
        "connect_token": "dG9rZW4=",
        "seat_key": "a2V5",
        "peer_keys": "",
        "websocket_url": None,
        "offer_key": "",
        "standby": None,
    }
    assert assignment_arguments({**ASSIGNMENT, "peer_keys": "cGVlcg=="})["peer_keys"] == "cGVlcg=="

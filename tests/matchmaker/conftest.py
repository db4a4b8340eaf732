"""Keys, profiles, and a real HTTP server that answers as the manager does."""

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from rest_framework.test import APIClient

from matchmaker.manager_client import Manager
from matchmaker.services.quotas import forget_counts
from relaymgr.tenants.models import Tenant
from relaymgr.tenants.services import api_key_create
from tests.support.manager import (  # noqa: F401  fixtures
    StandIn,
    api,
    client_with,
    make_stand_in,
    stand_in,
    tenant,
)

CONFIG: dict[str, Any] = {
    "ticket_expiration_period": "60s",
    "ticket_removal_period": "30s",
    "rules": {
        "initial": {
            "size": {"type": "player_count", "attributes": {"team_count": 2, "min_team_size": 1, "max_team_size": 2}},
            "elo": {"type": "number_difference", "attributes": {"max_difference": 50}},
        },
        "expansions": {"30": {"elo": {"max_difference": 500}}},
    },
}


@pytest.fixture(autouse=True)
def _no_tickets_counted() -> None:
    forget_counts()


@pytest.fixture
def players(tenant: Tenant) -> APIClient:  # noqa: F811
    """Speaks with the key that players have, without a word before it (EDGEGAP.md M1)."""
    return client_with(api_key_create(tenant=tenant, name="game", scopes=["matchmaker"])[1], word="")


@pytest.fixture
def make_profile(api: APIClient) -> Callable[..., None]:  # noqa: F811
    def make(name: str = "duel", **changes: Any) -> None:
        body = {"config": {**CONFIG, **changes}, "activate": True}
        answer = api.post(f"/matchmaker/profiles/{name}/versions", body, format="json")
        assert answer.status_code == 201, answer.content

    return make


@pytest.fixture
def profile(make_profile: Callable[..., None]) -> str:
    make_profile()
    return "duel"


@pytest.fixture
def search(players: APIClient, profile: str) -> Callable[..., dict[str, Any]]:
    """Opens a ticket; keyword arguments go over what is sent."""

    def open_ticket(elo: float = 1000, **more: Any) -> dict[str, Any]:
        body = {"profile": profile, "player_ip": "192.0.2.1", "attributes": {"elo": elo}, **more}
        answer = players.post("/matchmaker/tickets", body, format="json")
        assert answer.status_code == 201, answer.content
        found: dict[str, Any] = answer.json()
        return found

    return open_ticket


class ManagerStandIn:
    """Sessions by idempotency key, and what was done to them. `fails`: answers to give instead, one for each call."""

    def __init__(self, server: StandIn) -> None:
        self.server = server
        self.sessions: dict[str, dict[str, Any]] = {}
        self.deleted: list[str] = []
        self.tenants: set[str] = set()
        self.fails: list[tuple[int, dict[str, str]]] = []
        self.creates_before_failing = False
        self.numbers = itertools.count(1)
        server.answer = self.answer

    def answer(self, method: str, path: str, body: Any) -> tuple[int, bytes]:
        made = self._create(body) if path == "/v1/relays/sessions" and self.creates_before_failing else None
        if self.fails:
            status, error = self.fails.pop(0)
            return status, json.dumps(error).encode()
        found = made or self._route(method, path, body)
        return (404, b'{"code": "session_unknown"}') if found is None else (200, json.dumps(found).encode())

    def _route(self, method: str, path: str, body: Any) -> dict[str, Any] | None:
        if path == "/v1/locations":
            return {"locations": [{"slug": "fra", "city": "Frankfurt"}, {"slug": "fra-2", "city": "Frankfurt"}]}
        if path == "/v1/locations/beacons":
            return {"locations": []}
        if path == "/v1/relays/sessions":
            return self._create(body)
        if path.endswith(":authorize-user"):
            return self._authorize(body)
        if path.endswith(":revoke-user"):
            session = self.by_id(body["session_id"])
            session["session_users"] = [
                user for user in session["session_users"] if user["authorization_token"] != body["authorization_token"]
            ]
            return session
        session_id = path.rpartition("/")[2]
        if method == "DELETE":
            self.deleted.append(session_id)
        return next((one for one in self.sessions.values() if one["session_id"] == session_id), None)

    def by_id(self, session_id: str) -> dict[str, Any]:
        return next(one for one in self.sessions.values() if one["session_id"] == session_id)

    def _create(self, body: dict[str, Any]) -> dict[str, Any]:
        # The match's id is both the idempotency key and in the metadata; the stand-in reads bodies only.
        key = body["metadata"]["match"]
        if key not in self.sessions:
            number = next(self.numbers)
            self.sessions[key] = {
                "session_id": f"{number:012x}-S",
                "ready": True,
                "authorization_token": 1000 + number,
                "location": "fra",
                "dialects": body.get("dialects", ["edgegap", "native"]),
                "expires_at": "2030-01-01T00:00:00Z",
                "placement": f"/v1/relays/sessions/{number:012x}-S/placement",
                "relay": {
                    "ip": "203.0.113.9",
                    "host": "fra.example.com",
                    "ports": {
                        "server": {"port": 31000, "protocol": "UDP", "link": "fra.example.com:31000"},
                        "client": {"port": 31001, "protocol": "UDP", "link": "fra.example.com:31001"},
                    },
                },
                "session_users": [self._user(user, seat) for seat, user in enumerate(body["users"])],
                "request": body,
            }
        return self.sessions[key]

    def _user(self, user: dict[str, Any], seat: int) -> dict[str, Any]:
        mode = user.get("direct_mode", "relay_only")
        return {
            "player_id": user["player_id"],
            "seat": seat,
            "relay_ips": ["203.0.113.9"],
            "websocket_url": "wss://fra-1.example.com/relay/31001",
            "authorization_token": 5000 + seat,
            "connect_token": f"connect-{user['player_id']}",
            "seat_key": f"key-{user['player_id']}",
            "offer_key": f"offer-{user['player_id']}",
            "standby": {
                "ip": "203.0.113.10",
                "host": "203.0.113.10",
                "ipv4": "203.0.113.10",
                "ipv6": None,
                "ports": {
                    name: {"port": port, "protocol": "UDP", "link": f"203.0.113.10:{port}"}
                    for name, port in (("server", 31000), ("client", 31001))
                },
                "location": "tokyo",
                "relay_ips": ["203.0.113.10"],
                "connect_token": f"standby-{user['player_id']}",
            },
            "direct_mode": mode,
            "peer_keys": None if mode == "relay_only" else f"peers-{user['player_id']}",
        }

    def _authorize(self, body: dict[str, Any]) -> dict[str, Any]:
        session = self.by_id(body["session_id"])
        users = session["session_users"]
        mine = next((user for user in users if user["player_id"] == body["player_id"]), None)
        if mine is None:
            mine = self._user(body, len(users))
            users.append(mine)
        return {**session, "session_user": mine}


@pytest.fixture
def manager_stand_in(stand_in: StandIn) -> ManagerStandIn:  # noqa: F811
    return ManagerStandIn(stand_in)


@pytest.fixture
def manager(manager_stand_in: ManagerStandIn) -> Iterator[Manager]:
    manager = Manager(manager_stand_in.server.url, "key")
    yield manager
    manager.close()

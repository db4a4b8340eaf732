"""Requests that the tests of the APIs share."""

from collections.abc import Callable
from typing import Any

from rest_framework.test import APIClient

from tests.matchmaker.conftest import CONFIG

Search = Callable[..., dict[str, Any]]


BASE = "/matchmaker"


def problems(answer: Any, status: int = 400) -> dict[str, str]:
    """Path -> reason."""
    assert answer.status_code == status, answer.content
    return {path: found[0]["message"] for path, found in answer.json()["details"].items()}


def body(**more: Any) -> dict[str, Any]:
    return {"profile": "duel", "attributes": {"elo": 1}, **more}


def member(ready: bool = False, elo: float = 1000, **more: Any) -> dict[str, Any]:
    return {"profile": "duel", "attributes": {"elo": elo}, "player_ip": None, "is_ready": ready, **more}


def versions(api: APIClient, **changes: Any) -> Any:
    body = {"config": {**CONFIG, **changes}, "activate": True}
    return api.post(f"{BASE}/profiles/duel/versions", body, format="json")

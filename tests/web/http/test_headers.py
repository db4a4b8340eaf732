"""What every answer carries against misuse by browsers and caches."""

from typing import Any

import pytest
from django.test import Client
from rest_framework.test import APIClient


def policy(answer: Any) -> dict[str, list[str]]:
    parts = [part.split() for part in answer["Content-Security-Policy"].split(";") if part.strip()]
    return {name: sources for name, *sources in parts}


@pytest.mark.parametrize("path", ["/admin/login/", "/docs", "/v1/openapi.json", "/v1/ip", "/nothing", "/monitor"])
def test_no_page_runs_what_is_not_ours_or_shows_in_anothers_frame(db: None, path: str) -> None:
    answer = Client().get(path)
    directives = policy(answer)
    assert directives["script-src"] == ["'self'"]
    assert directives["default-src"] == directives["frame-ancestors"] == directives["base-uri"] == ["'none'"]
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["X-Frame-Options"] == "DENY"
    assert answer["Referrer-Policy"] == "same-origin"
    assert "camera=()" in answer["Permissions-Policy"]


def test_only_the_docs_page_may_style_element_by_element(db: None) -> None:
    assert policy(Client().get("/admin/login/"))["style-src"] == ["'self'"]
    assert policy(Client().get("/docs"))["style-src"] == ["'self'", "'unsafe-inline'"]


@pytest.mark.parametrize("path", ["/v1/ip", "/v1/relays/sessions", "/matchmaker/monitor", "/v1/nothing"])
def test_no_answer_of_the_api_is_kept_on_the_way(api: APIClient, path: str) -> None:
    assert api.get(path)["Cache-Control"] == "no-store"

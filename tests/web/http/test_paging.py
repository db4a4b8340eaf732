"""A list in parts, from which sessions go away while it is read."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from matchmaker.models import Profile, ProfileVersion
from relaymgr.sessions.models import RelaySession, SessionState
from relaymgr.tenants.models import Tenant
from tests.relaymgr.sessions.conftest import SESSIONS

pytestmark = pytest.mark.django_db


@pytest.fixture
def many(tenant: Tenant) -> list[str]:
    """The ids of 25 sessions, newest first; some were made in the same moment."""
    now = timezone.now()
    made = [RelaySession(tenant=tenant, token="1", idle_timeout=60, expires_at=now) for _ in range(25)]
    RelaySession.objects.bulk_create(made)
    for index, session in enumerate(made):
        RelaySession.objects.filter(pk=session.pk).update(created_at=now - timedelta(seconds=index // 4))
    return list(RelaySession.objects.values_list("pk", flat=True))


def parts(api: APIClient, first: dict[str, Any], between: Any) -> list[str]:
    seen, query = [], first
    while True:
        answer = api.get(SESSIONS, query).json()
        seen += [session["session_id"] for session in answer["sessions"]]
        if answer["next_cursor"] is None:
            return seen
        between(seen)
        query = {"limit": 4, "cursor": answer["next_cursor"]}


def test_a_cursor_skips_nothing_while_sessions_end(api: APIClient, many: list[str]) -> None:
    def end_some(seen: list[str]) -> None:
        RelaySession.objects.filter(pk__in=seen[-3:]).update(state=SessionState.ENDED)

    assert parts(api, {"limit": 4}, end_some) == many


def test_a_cursor_gives_nothing_twice_while_sessions_begin(api: APIClient, tenant: Tenant, many: list[str]) -> None:
    def begin_one(seen: list[str]) -> None:
        RelaySession.objects.create(tenant=tenant, token="1", idle_timeout=60, expires_at=timezone.now())

    assert parts(api, {"limit": 4, "page": 1}, begin_one) == many


def test_pages_stay_as_they_are_in_edgegap(api: APIClient, many: list[str]) -> None:
    answer = api.get(SESSIONS, {"limit": 10, "page": 3}).json()
    assert [session["session_id"] for session in answer["sessions"]] == many[20:]
    assert (answer["total_count"], answer["pagination"]["number"], answer["next_cursor"]) == (25, 3, None)


@pytest.mark.parametrize("cursor", ["x", "e30=", "WyJ4Il0=", "WyJ4IiwgIngiXQ==", "WzEsIDJd", "WyJcdTAwMDAiLCAieCJd"])
@pytest.mark.parametrize("path", [SESSIONS, "/matchmaker/profiles", "/matchmaker/inspect/tickets"])
def test_what_is_no_cursor_is_400(api: APIClient, path: str, cursor: str) -> None:
    answer = api.get(path, {"cursor": cursor})
    if not (path.endswith("profiles") and cursor == "WyJ4Il0="):  # a name
        assert (answer.status_code, list(answer.json()["details"])) == (400, ["cursor"])


def test_page_and_cursor_together_are_400(api: APIClient, many: list[str]) -> None:
    cursor = api.get(SESSIONS, {"limit": 4}).json()["next_cursor"]
    assert api.get(SESSIONS, {"page": 2, "cursor": cursor}).status_code == 400


def test_profiles_and_versions_come_in_parts(api: APIClient) -> None:
    for number in range(5):
        profile = Profile.objects.create(tenant="studio", name=f"p{number}")
    for number in range(1, 6):
        ProfileVersion.objects.create(profile=profile, number=number, config={})
    for path, items, names in (
        ("/matchmaker/profiles", "profiles", ["p0", "p1", "p2", "p3", "p4"]),
        ("/matchmaker/profiles/p4", "versions", [5, 4, 3, 2, 1]),
    ):
        query: dict[str, Any] = {"limit": 2}
        seen = []
        while True:
            answer = api.get(path, query).json()
            seen += [item.get("name", item.get("number")) for item in answer[items]]
            if answer["next_cursor"] is None:
                break
            query["cursor"] = answer["next_cursor"]
        assert seen == names

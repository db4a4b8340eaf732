"""The paths between players on a session's page, in a browser."""

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from playwright.sync_api import Browser, expect

from relaymgr.nodes.models import RelayNode
from relaymgr.sessions.models import RelaySession, Seat
from relaymgr.telemetry.models import PathSample, PeerPath
from relaymgr.tenants.models import Tenant
from tests.flows.browser import running_browser, watched
from tests.relaymgr.conftest import location, make_node, node, tenant

__all__ = ["location", "make_node", "node", "tenant"]

pytestmark = [pytest.mark.flow, pytest.mark.browser, pytest.mark.django_db(transaction=True)]

SCREENSHOTS = os.environ.get("CAUSEWAY_SCREENSHOTS")
LOOKS = [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")]
KINDS = (
    ("ipv4", "better"),
    ("relay", "no_direct_path"),
    ("local_network", "first_path"),
    ("ipv6", "better"),
    ("port_mapped", "path_failed"),
    ("relay", "only_small_packets"),
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # Playwright runs an event loop of its own, beside which Django refuses queries.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    with running_browser() as started:
        yield started
    del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


@pytest.fixture
def session(node: RelayNode, tenant: Tenant) -> RelaySession:
    """Of three players, each pair on another path."""
    now = timezone.now()
    made = RelaySession.objects.create(
        tenant=tenant,
        worker=node.workers.get(),
        state="ready",
        topology="mesh",
        dialects=["native"],
        direct_mode="direct",
        token="1",
        idle_timeout=60,
        ready_at=now - timedelta(minutes=50),
        expires_at=now + timedelta(hours=1),
    )
    for number in range(3):
        Seat.objects.create(session=made, number=number, token=str(number + 2), seat_key="k", direct_mode="direct")
    pairs = [(seat, peer) for seat in range(3) for peer in range(3) if seat != peer]
    for index, ((seat, peer), (path, reason)) in enumerate(zip(pairs, KINDS, strict=True)):
        row: dict[str, Any] = {"node": node, "session_id": made.pk, "seat": seat, "peer": peer, "loss": 0.004}
        row |= {"rtt_ms": 18.25 + index, "relay_rtt_ms": 41.0, "packets": 10**index, "bytes": 150 * 10**index}
        for minutes, before in ((50, "relay"), (40, "ipv4"), (20, "relay")):
            PathSample.objects.create(**row, at=now - timedelta(minutes=minutes), path=before, reason="better")
        since = now - timedelta(minutes=5 + index)
        PeerPath.objects.create(
            **row, at=now, since=since, path=path, reason=reason, changes=3, unannounced=0, sampled=""
        )
    return made


def test_table_of_paths_has_no_serious_fault_in_any_look(
    browser: Browser, live_server: Any, session: RelaySession
) -> None:
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    cookie = client.cookies["sessionid"].value
    with watched(browser, live_server.url) as page:
        page.context.add_cookies([{"name": "sessionid", "value": cookie, "url": live_server.url}])
        page.goto(f"{live_server.url}/admin/relay_sessions/relaysession/{session.pk}/change/")
        table = page.get_by_role("region", name="Paths between players")
        expect(table.locator("tbody tr")).to_have_count(6)
        expect(page.locator("#path-0-1")).to_contain_text("it measures better than the path before")
        expect(page.locator("#path-0-1 rect")).to_have_count(4)
        for width, scheme in LOOKS:
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            page.evaluate("document.getAnimations().forEach((each) => each.finish())")
            found = Axe().run(page, options={"resultTypes": ["violations"], "preload": False}).response["violations"]
            assert not [fault for fault in found if fault["impact"] in ("serious", "critical")]
            assert not page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
            if SCREENSHOTS:
                page.screenshot(path=Path(SCREENSHOTS) / f"paths-{width}-{scheme}.png", full_page=True)

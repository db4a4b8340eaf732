"""Each role against each page of the admin, from one table; and what a page offers may be followed."""

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.db import transaction
from django.db.models import Model
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from matchmaker.models import Backfill, Match, Process, Profile, ProfileVersion, Ticket
from relaymgr.nodes.health.incidents import incident_record
from relaymgr.nodes.keys import join_key_create, token_key_rotate
from relaymgr.nodes.models import JoinKey, Location, NodeIncident, NodeStateChange, RelayNode
from relaymgr.nodes.states import IncidentKind
from relaymgr.operations.roles import ROLES, roles_make
from relaymgr.sessions.models import (
    Grant,
    IdempotencyKey,
    PlacementRule,
    RelaySession,
    Seat,
    SessionEvent,
    WebhookDelivery,
    WebhookEndpoint,
)
from relaymgr.telemetry.models import (
    Lease,
    LegSample,
    NodeEvent,
    NodeSample,
    NodeSummary,
    PathSample,
    PeerLegs,
    PeerPath,
    PrefixLeg,
    ProcessExit,
    StoredLatencyModel,
)
from relaymgr.tenants.models import ApiKey, Tenant
from relaymgr.tenants.services import api_key_create
from tests.matchmaker.conftest import CONFIG
from web.admin.base import AuditedAdmin
from web.audit.models import AuditEntry
from web.audit.via import Via

pytestmark = pytest.mark.django_db

# What each role may do beside looking; a role may what those before it may. Words with a dash are acts.
TABLE: dict[str, dict[type[Model], str]] = {
    "viewer": {},
    "operator": {
        RelayNode: "change -drain -undrain -ban",
        Location: "change",
        NodeIncident: "-forget",
        RelaySession: "-change_direct_mode -delete -ban_node",
        Seat: "-change_direct_mode -revoke",
        WebhookDelivery: "-retry",
        WebhookEndpoint: "-close",
        PlacementRule: "add change delete",
    },
    "administrator": {
        RelayNode: "-rotate_token_key -rotate_node_key -remove",
        Location: "add delete -create_join_key",
        JoinKey: "add delete -revoke",
        Tenant: "add change -create_key -rotate_webhook_secret",
        ApiKey: "add change -revoke -rotate",
        Profile: "-roll_back",
        ProfileVersion: "add -activate -try_again",
        Seat: "-erase_player",
        User: "add change delete",
    },
}
PEOPLE = (User, Group)  # seen by administrators alone
MODELS = list(admin.site._registry)


def allowed(role: str, model: type[Model]) -> set[str]:
    words = {word for each in ROLES[: ROLES.index(role) + 1] for word in TABLE[each].get(model, "").split()}
    return words | ({"view"} if model not in PEOPLE or role == "administrator" else set())


def acts_of(model: type[Model]) -> list[str]:
    page = admin.site._registry[model]
    return [name for name in page.actions or () if hasattr(getattr(type(page), name, None), "confirmed_action")]


@pytest.fixture(autouse=True)
def rows(tenant: Tenant, node: RelayNode) -> None:
    """A row of every model."""
    now = timezone.now()
    worker = node.workers.get()
    session = RelaySession.objects.create(
        tenant=tenant,
        worker=worker,
        state="ready",
        token="1",
        limits={"seat": {"packets": 0, "bytes": 0}, "session": {"packets": 0, "bytes": 0}},
        idle_timeout=60,
        expires_at=now + timedelta(hours=1),
    )
    Seat.objects.create(session=session, number=0, token="2", seat_key="k", player_id="ann")
    Grant.objects.create(session=session, worker=worker, seats_reserved=1)
    SessionEvent.objects.create(session=session, at=now, kind="ready")
    IdempotencyKey.objects.create(tenant=tenant, key_hash="a", request_hash="b", session=session)
    WebhookDelivery.objects.create(tenant=tenant, session=session, event="ready", url="https://x.example", payload="{}")
    WebhookEndpoint.objects.create(tenant=tenant, host="https://x.example", failures=5, retry_at=now, changed_at=now)
    PlacementRule.objects.create(kind="prefer", node=node)
    incident_record(node_id=node.pk, kind=IncidentKind.OUTLIER, detail="it contradicts ams, lon")
    api_key_create(tenant=tenant, name="test", scopes=["relay"])
    join_key_create(location=node.location)
    token_key_rotate(node=node)
    load: dict[str, Any] = {"node": node, "at": now}
    NodeSample.objects.create(probe_ms=1, cpu=0, sessions=1, seats=1, connected=1, **load)
    NodeSummary.objects.create(
        seconds=60, samples=1, probe_ms=1, cpu=0, cpu_max=0, sessions_max=1, seats_max=1, connected_max=1, **load
    )
    LegSample.objects.create(session_id=session.pk, seat=0, rtt_ms=1, jitter_ms=1, loss=0, **load)
    path = {"session_id": session.pk, "seat": 0, "peer": 1, "path": "ipv4", "reason": "better"}
    path |= {"loss": 0.0, "packets": 1, "bytes": 100, **load}
    PathSample.objects.create(**path)
    PeerPath.objects.create(**path, since=now, changes=1, unannounced=0, sampled="")
    NodeEvent.objects.create(boot_id="b", number=1, session_id=session.pk, seat=0, kind="seat_joined", **load)
    PrefixLeg.objects.create(prefix="192.0.2.0/24", ms=1, jitter_ms=1, loss=0, **load)
    ProcessExit.objects.create(
        supervisor="fra-1", process="worker", boot_id="b", number=1, at=now, status=1, uptime_s=1
    )
    PeerLegs.objects.create(legs={}, **load)
    StoredLatencyModel.objects.create(at=now, document={})
    NodeStateChange.objects.create(before="ready", after="lost", **load)
    NodeStateChange.objects.create(before="ready", after="lost", **load)
    Lease.objects.create(name="probe", until=now)
    AuditEntry.objects.create(via=Via.ADMIN, actor="ann", action="node.drain", target="fra-1")
    profile = Profile.objects.create(tenant="studio", name="duel")
    version = ProfileVersion.objects.create(profile=profile, number=1, config=CONFIG)
    Ticket.objects.create(
        tenant="studio", version=version, player_ip="192.0.2.1", attributes={}, expires_at=now + timedelta(hours=1)
    )
    Match.objects.create(version=version, teams={}, seats=[])
    Backfill.objects.create(tenant="studio", version=version, attributes={}, expires_at=now + timedelta(hours=1))
    Process.objects.create(name="here:1", started_at=now, seen_at=now)
    User.objects.create_user("somebody")


def client_of(role: str) -> Client:
    user = User.objects.create_user(f"the {role}", is_staff=True)
    user.groups.add(Group.objects.get(name=role))
    client = Client()
    client.force_login(user)
    return client


def url(model: type[Model], page: str, *args: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}", args=args)


def pages_of(model: type[Model]) -> Iterator[tuple[str, str, dict[str, Any], str]]:
    """(method, path, what is sent, the word that allows it)."""
    row = model._default_manager.order_by("pk").first()
    assert row, f"make a row of {model.__name__}"
    name = row.player_id if isinstance(row, Ticket) else row.pk  # a ticket's id opens its assignment
    yield "GET", url(model, "changelist"), {}, "view"
    yield "GET", url(model, "change", name), {}, "view"
    yield "GET", url(model, "history", name), {}, "view"
    yield "POST", url(model, "change", name), {}, "change"
    for method in ("GET", "POST"):
        yield method, url(model, "add"), {}, "add"
        yield method, url(model, "delete", name), {"post": "yes"} if method == "POST" else {}, "delete"
        for act in acts_of(model):
            yield method, url(model, "action", act), {"pk": row.pk}, f"-{act}"
    # As the list itself sends it: an act that is not offered does nothing, and the list comes back.
    yield "POST", url(model, "changelist"), {"action": "delete_selected", "_selected_action": [row.pk]}, "view"


@pytest.mark.parametrize("role", ROLES)
def test_each_page_answers_as_the_table_says(role: str) -> None:
    client = client_of(role)
    wrong = []
    for model in MODELS:
        for method, path, sent, word in pages_of(model):
            with transaction.atomic():
                answer = getattr(client, method.lower())(path, sent)
                transaction.set_rollback(True)
            expected = (200, 302) if word in allowed(role, model) else (403,)
            if answer.status_code not in expected:
                wrong.append(f"{method} {path}: {answer.status_code}, not {expected}")
    assert not wrong, "\n".join(wrong)


def test_the_table_knows_every_act_there_is() -> None:
    named = {
        (model, word[1:])
        for each in TABLE.values()
        for model, words in each.items()
        for word in words.split()
        if word[0] == "-"
    }
    assert named == {(model, name) for model in MODELS for name in acts_of(model)}


def test_no_action_of_ours_goes_unasked_and_unrecorded() -> None:
    for model, page in admin.site._registry.items():
        assert isinstance(page, AuditedAdmin), model
        assert list(page.actions or ()) == acts_of(model), f"an action of {model} is no act"


@pytest.mark.parametrize("role", ["viewer", "operator"])  # to an administrator nearly all is open
def test_what_a_page_offers_may_be_followed(role: str) -> None:
    client = client_of(role)
    paths = {reverse("admin:index")}
    for model in MODELS:
        paths |= {path for method, path, _, word in pages_of(model) if method == "GET" and word in allowed(role, model)}
    offered: dict[str, str] = {}
    for path in paths:
        shown = client.get(path).content.decode()
        offered |= {link.replace("&amp;", "&"): path for link in re.findall(r'href="(/admin/[^"#]*)"', shown)}
        acts = set(re.findall(r'<option value="(\w+)">', shown.partition('name="action"')[2].partition("</select>")[0]))
        for model in MODELS:
            if path == url(model, "changelist"):
                assert acts - {"delete_selected"} == {word[1:] for word in allowed(role, model) if word[0] == "-"}
    refused = {link: path for link, path in offered.items() if client.get(link).status_code not in (200, 302)}
    assert not refused


@pytest.mark.parametrize("who", ["nobody", "a person without the right to these pages"])
def test_others_are_sent_to_the_login(who: str) -> None:
    client = Client()
    if who != "nobody":
        client.force_login(User.objects.create_user("stranger"))
    paths = [reverse("admin:index"), reverse("admin:now")]
    for path in [*paths, *(path for model in MODELS for _, path, _, _ in pages_of(model))]:
        assert client.get(path).headers["Location"].startswith("/admin/login/"), path
        assert client.post(path, {"post": "yes"}).headers["Location"].startswith("/admin/login/"), path


def test_staff_without_a_role_sees_no_figures() -> None:
    client = Client()
    client.force_login(User.objects.create_user("fresh", is_staff=True))
    assert client.get(reverse("admin:now")).status_code == 403
    assert "fra-1" not in client.get(reverse("admin:index")).content.decode()


def test_a_role_that_was_changed_by_hand_is_mended_by_migrate() -> None:
    viewer = Group.objects.get(name="viewer")
    before = set(viewer.permissions.all())
    viewer.permissions.clear()
    roles_make()
    assert set(viewer.permissions.all()) == before


def test_administrator_neither_makes_nor_touches_a_superuser() -> None:
    client = client_of("administrator")
    root = User.objects.create_superuser("root", password="before")
    form = {"username": "root", "is_superuser": "on", "date_joined_0": "2026-01-01", "date_joined_1": "00:00:00"}
    assert client.post(url(User, "change", root.pk), form).status_code == 403
    assert client.post(f"/admin/auth/user/{root.pk}/password/", {"password1": "x", "password2": "x"}).status_code == 403
    somebody = User.objects.get(username="somebody")
    answer = client.post(url(User, "change", somebody.pk), {"username": "somebody", "is_superuser": "on"})
    assert answer.status_code == 302
    somebody.refresh_from_db()
    assert not somebody.is_superuser
    # A superuser is kept out of what deletes many at once, too.
    chosen = {"action": "delete_selected", "_selected_action": [root.pk], "post": "yes"}
    client.post(url(User, "changelist"), chosen)
    assert User.objects.filter(pk=root.pk).exists()


def test_person_is_given_a_role_when_made() -> None:
    client = client_of("administrator")
    form = {"username": "nina", "usable_password": "true", "password1": "tulip-garden-9", "password2": "tulip-garden-9"}
    form["groups"] = str(Group.objects.get(name="operator").pk)
    assert client.post(url(User, "add"), form).status_code == 302
    nina = User.objects.get(username="nina")
    assert nina.is_staff and [group.name for group in nina.groups.all()] == ["operator"]
    entry = AuditEntry.objects.get(action="user.add", target="nina")
    assert (entry.via, entry.actor) == (Via.ADMIN, "the administrator")
    assert not AuditEntry.objects.filter(detail__contains="tulip").exists()

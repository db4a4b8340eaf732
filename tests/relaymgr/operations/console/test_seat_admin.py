from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from relaymgr.sessions.models import RelaySession, Seat
from relaymgr.tenants.models import Tenant
from tests.support.admin_actions import confirm_action
from web.audit.models import AuditEntry

pytestmark = pytest.mark.django_db


@pytest.fixture
def session(tenant: Tenant) -> RelaySession:
    expires_at = timezone.now() + timedelta(hours=1)
    return RelaySession.objects.create(tenant=tenant, token="1", idle_timeout=60, expires_at=expires_at)


def make_seat(session: RelaySession, number: int = 0, **player: str) -> Seat:
    return Seat.objects.create(session=session, number=number, token=str(number + 2), seat_key="k", **player)


def export_url(seat: Seat) -> str:
    return reverse("admin:relay_sessions_seat_export", args=[seat.pk])


def test_player_without_an_id_is_exported_by_address(session: RelaySession, admin_client: Client) -> None:
    for number in range(2):
        make_seat(session, number, ip="198.51.100.7")
    make_seat(session, 2, ip="198.51.100.8")
    found = admin_client.post(export_url(Seat.objects.get(number=0))).json()
    assert (found["ip"], found["player_id"]) == ("198.51.100.7", "")
    assert sorted(seat["seat"] for seat in found["seats"]) == [0, 1]
    assert AuditEntry.objects.get().action == "player.export"


def test_seat_without_player_data_offers_no_export_and_no_erasure(session: RelaySession, admin_client: Client) -> None:
    seat = make_seat(session)
    assert admin_client.post(export_url(seat)).status_code == 404
    page = admin_client.get(reverse("admin:relay_sessions_seat_change", args=[seat.pk])).content.decode()
    assert "Export the player" not in page


def test_export_is_by_post_and_needs_the_permission_to_erase(session: RelaySession, admin_client: Client) -> None:
    seat = make_seat(session, player_id="ann")
    assert admin_client.get(export_url(seat)).status_code == 403
    viewer = User.objects.create_user("viewer", is_staff=True)
    viewer.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client = Client()
    client.force_login(viewer)
    assert client.post(export_url(seat)).status_code == 403
    assert not AuditEntry.objects.filter(action="player.export").exists()


def test_erasure_covers_every_seat_of_the_player(session: RelaySession, admin_client: Client) -> None:
    first, other = make_seat(session, 0, player_id="ann"), make_seat(session, 2, player_id="ben")
    make_seat(session, 1, player_id="ann")
    (message,) = confirm_action(admin_client, Seat, "erase_player", first)
    assert "is erased: 2 seats, " in message
    assert list(Seat.objects.exclude(player_id="")) == [other]

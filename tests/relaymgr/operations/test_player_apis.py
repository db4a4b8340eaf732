import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from relaymgr.sessions.models import RelaySession, Seat, SessionEvent
from tests.relaymgr.test_data_protection import V4, V6, make_stand_in_node, players, receiver, session

__all__ = ["make_stand_in_node", "players", "receiver", "session"]

pytestmark = pytest.mark.django_db


def test_export_has_all_of_one_player_and_no_token(session: RelaySession, api: APIClient) -> None:
    SessionEvent.objects.create(session=session, at=timezone.now(), kind="seat_joined", seat=0)
    answer = api.post("/v1/players:export", {"player_id": "ann-4711"}, format="json")
    assert answer.status_code == 200, answer.content
    found = answer.json()
    (seat,) = found["seats"]
    assert (seat["session"], seat["ip"], seat["latitude"]) == (session.pk, V4, 48.13712)
    assert [event["kind"] for event in seat["events"]] == ["seat_joined"] and seat["legs"][0]["rtt_ms"] == 23.4567
    assert [user["user"]["ip_address"] for user in found["webhooks"]] == [V4]
    text = answer.content.decode()
    for secret in Seat.objects.values_list("token", "seat_key", "connect_token"):
        assert not [each for each in secret if each in text]
    assert "ben-4712" not in text and V6 not in text

    by_address = api.post("/v1/players:export", {"ip": V4}, format="json").json()
    assert [ticket["player_ip"] for ticket in by_address["tickets"]] == [V4]
    assert [match["user"]["ip"] for match in by_address["matches"] if match["user"]] == [V4]


@pytest.mark.parametrize("body", [{}, {"player_id": "a", "ip": V4}, {"ip": "x"}, {"player_id": ""}])
def test_one_player_is_named_in_one_way(body: dict[str, str], api: APIClient) -> None:
    for path in ("/v1/players:export", "/v1/players:erase"):
        assert api.post(path, body, format="json").json()["code"] == "invalid"

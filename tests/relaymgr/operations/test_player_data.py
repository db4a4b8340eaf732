import re

import pytest
from rest_framework.test import APIClient

from matchmaker.background.session_assignment import match_fail
from matchmaker.models import Match
from relaymgr.sessions.models import RelaySession
from tests.relaymgr.test_data_protection import V4, V6, make_stand_in_node, places, players, receiver, session
from web.audit.models import AuditEntry

__all__ = ["make_stand_in_node", "players", "receiver", "session"]

pytestmark = pytest.mark.django_db


def test_erasure_leaves_nothing_of_the_player_and_all_of_the_other(session: RelaySession, api: APIClient) -> None:
    match_fail(Match.objects.get(), "no_relay")
    for who in ({"ip": V4}, {"player_id": "ann-4711"}):
        answer = api.post("/v1/players:erase", who, format="json")
        assert answer.status_code == 200, answer.content
    assert places(V4, "ann-4711", "48.13712") == set()
    assert {"Seat.ip", "Seat.player_id", "Ticket.player_ip"} <= places(V6, "ben-4712")
    assert RelaySession.objects.get().is_ready, "the game goes on"
    assert api.post("/v1/players:erase", {"player_id": "ann-4711"}, format="json").json()["seats"] == 0
    entry = AuditEntry.objects.filter(action="player.erase").last()
    assert entry and entry.via == "api" and re.fullmatch(r"studio player sha256:[0-9a-f]{16}", entry.target)

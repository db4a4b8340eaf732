from typing import Any

import pytest

from relaymgr.sessions.models import RelaySession, Seat
from relaymgr.tenants.models import Tenant
from tests.relaymgr.test_data_protection import make_stand_in_node, players, receiver, session

__all__ = ["make_stand_in_node", "players", "receiver", "session"]

pytestmark = pytest.mark.django_db


def test_another_tenants_player_of_that_name_is_left_alone(session: RelaySession, relayctl: Any) -> None:
    Tenant.objects.create(name="Other", slug="other")
    assert relayctl("player-erase", "other", "--player-id", "ann-4711", "--yes").exit_code == 0
    assert Seat.objects.filter(player_id="ann-4711").exists()


@pytest.mark.parametrize("options", [(), ("--player-id", "ann", "--ip", "198.51.100.77"), ("--ip", "x")])
@pytest.mark.parametrize("command", ["player-export", "player-erase"])
def test_player_is_named_by_one_valid_option(
    command: str, options: tuple[str, ...], tenant: Tenant, relayctl: Any
) -> None:
    refused = relayctl(command, "studio", *options)
    assert refused.exit_code != 0
    assert "either --player-id or --ip" in refused.stderr or "not an IP address" in refused.stderr

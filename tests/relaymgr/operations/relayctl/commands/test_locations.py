from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from relaymgr.nodes.models import JoinKey, Location, RelayNode
from relaymgr.nodes.selectors import join_key_get
from web.audit.models import AuditEntry

from ..conftest import Relayctl


def test_locations_with_their_nodes_and_free_seats(
    make_node: Callable[..., RelayNode], document: Callable[..., Any]
) -> None:
    make_node("fra-1", seats=100)
    make_node("fra-2", seats=50)
    make_node("fra-3", seats=50, is_draining=True)
    (found,) = document("locations")["locations"]
    assert (found["name"], found["nodes"], found["nodes_ready"], found["free_seats"]) == ("frankfurt", 3, 2, 150)


def test_join_key_is_alone_on_stdout_and_works(location: Location, relayctl: Relayctl) -> None:
    result = relayctl("join-key", "frankfurt", "--hours", "0.5")
    key = join_key_get(presented=result.stdout.strip())
    assert key is not None and key.location == location
    assert key.expires_at <= timezone.now() + timedelta(minutes=30)


def test_join_key_is_for_as_many_nodes_as_asked(location: Location, relayctl: Relayctl) -> None:
    assert relayctl("join-key", "frankfurt", "--uses", "3").exit_code == 0
    assert JoinKey.objects.get().uses_left == 3


def test_join_key_is_in_no_other_place(location: Location, relayctl: Relayctl) -> None:
    plain = relayctl("join-key", "frankfurt").stdout.strip()
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.target) == ("join_key.create", "frankfurt")
    assert plain not in str(vars(entry))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("hours", value) for value in ("0", "-1", "9000", "nan")),
        *(("uses", value) for value in ("0", "-1", "99999999")),
    ],
)
def test_what_makes_no_sense_is_refused(location: Location, relayctl: Relayctl, option: str, value: str) -> None:
    result = relayctl("join-key", "frankfurt", f"--{option}", value)
    assert result.exit_code == 1
    assert option in result.stderr
    assert not JoinKey.objects.exists()


def test_unknown_location_is_refused(relayctl: Relayctl) -> None:
    assert "location_unknown" in relayctl("join-key", "nowhere").stderr

"""The locations that a process reads from the manager."""

import pytest

from matchmaker.background import process_state
from matchmaker.manager_client import Manager
from matchmaker.models import LocationSnapshot
from tests.matchmaker.conftest import ManagerStandIn

pytestmark = pytest.mark.django_db


def test_locations_are_kept_while_the_manager_is_down(manager: Manager, manager_stand_in: ManagerStandIn) -> None:
    assert process_state.locations_refresh(manager)
    manager_stand_in.fails = [(500, {})]
    assert not process_state.locations_refresh(manager)
    assert LocationSnapshot.objects.get().locations

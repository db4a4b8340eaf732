import pytest

from relaymgr.operations.player_data import player_export
from relaymgr.sessions import player_data as sessions
from relaymgr.tenants.models import Tenant
from web.audit.via import Via
from web.player_data import stores


@pytest.mark.django_db
def test_an_export_contains_every_store_under_keys_of_its_own(tenant: Tenant) -> None:
    player = sessions.Player(player_id="ada")
    keys = list(sessions.player_export(tenant=tenant, player=player))
    for store in stores:
        exported = store.player_export(tenant=tenant.slug, player_id="ada")
        assert exported
        keys += exported
    assert len(stores) >= 1 and len(keys) == len(set(keys))
    assert set(keys) < set(player_export(tenant=tenant, player=player, via=Via.ADMIN, actor="ann"))

"""Join keys, node keys and token keys."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from relaymgr.nodes.keys import join_key_create, join_key_revoke, node_key_rotate, token_key_rotate, token_keys_renew
from relaymgr.nodes.models import JoinKey, Location, RelayNode, TokenKey
from relaymgr.nodes.selectors import token_key_current, token_keys_open
from relaymgr.nodes.services import (
    JoinKeyInvalid,
)
from relaymgr.nodes.states import NodeState
from relaymgr.tenants.selectors import api_key_get
from tests.relaymgr.nodes.test_services import heartbeat, join, join_key

__all__ = ["join_key"]

pytestmark = pytest.mark.django_db


def test_half_used_join_key_can_be_revoked(location: Location) -> None:
    key = join_key_create(location=location, uses=2)
    join(key)
    assert join_key_revoke(join_key=JoinKey.objects.get())
    with pytest.raises(JoinKeyInvalid):
        join(key, name="fra-2")


def test_used_join_key_cannot_be_revoked(join_key: str) -> None:
    join(join_key)
    assert not join_key_revoke(join_key=JoinKey.objects.get())


def test_rolled_node_key_is_the_nodes_and_the_old_one_dead(join_key: str) -> None:
    joined = join(join_key)
    new = node_key_rotate(node=joined.node)
    assert api_key_get(presented=joined.node_key) is None
    found = api_key_get(presented=new)
    assert found is not None and found.relaynode == joined.node


def test_new_token_key_seals_only_once_the_node_has_it(join_key: str) -> None:
    node = join(join_key).node
    first = token_key_current(node=node)
    heartbeat(node, key_ids=[first.key_id])
    second = token_key_rotate(node=node)
    assert token_key_current(node=node) == first
    heartbeat(node, key_ids=[first.key_id, second.key_id])
    assert token_key_current(node=node) == second
    first.refresh_from_db()
    assert first.retired_at is not None
    assert set(token_keys_open(node=node)) == {first, second}


def test_key_that_no_heartbeat_has_named_yet_is_better_than_none(join_key: str) -> None:
    joined = join(join_key)
    assert token_key_current(node=joined.node) == joined.token_key
    newer = token_key_rotate(node=joined.node)
    assert token_key_current(node=joined.node) == newer


def test_key_ids_that_are_not_the_nodes_confirm_nothing(node: RelayNode) -> None:
    key = token_key_rotate(node=node)
    heartbeat(node, key_ids=[key.key_id ^ 1])
    key.refresh_from_db()
    assert key.confirmed_at is None


def test_retired_key_opens_until_its_last_token_has_expired(join_key: str, settings: Any) -> None:
    node = join(join_key).node
    first = token_key_current(node=node)
    second = token_key_rotate(node=node)
    heartbeat(node, key_ids=[first.key_id, second.key_id])
    TokenKey.objects.filter(pk=first.pk).update(
        retired_at=timezone.now() - timedelta(seconds=settings.TOKEN_KEY_OVERLAP + 1)
    )
    assert list(token_keys_open(node=node)) == [second]
    token_keys_renew()
    assert list(TokenKey.objects.all()) == [second]


def test_old_keys_are_rolled_by_themselves_once(join_key: str, settings: Any) -> None:
    node = join(join_key).node
    assert token_keys_renew() == 0
    TokenKey.objects.update(created_at=timezone.now() - timedelta(seconds=settings.TOKEN_KEY_LIFETIME + 1))
    assert token_keys_renew() == 1
    assert token_keys_renew() == 0
    assert node.token_keys.count() == 2


def test_lost_nodes_get_no_new_keys(make_node: Callable[..., RelayNode]) -> None:
    make_node(state=NodeState.LOST)
    assert token_keys_renew() == 0

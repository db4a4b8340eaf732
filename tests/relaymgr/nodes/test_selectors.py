from collections.abc import Callable

import pytest

from relaymgr.nodes.models import RelayNode, TokenKey
from relaymgr.nodes.selectors import placement_nodes, token_key_current

pytestmark = pytest.mark.django_db


def test_placement_nodes_are_read_in_two_queries(
    make_node: Callable[..., RelayNode], django_assert_num_queries: Callable
) -> None:
    for number in range(10):
        make_node(f"node-{number}")
    with django_assert_num_queries(2):
        found = [
            (node.name, node.location.slug, [w.free_seats for w in node.workers.all()]) for node in placement_nodes()
        ]
    assert found == [(f"node-{number}", "frankfurt", [100]) for number in range(10)]


def test_node_that_never_joined_has_no_key_to_seal_with(node: RelayNode) -> None:
    with pytest.raises(TokenKey.DoesNotExist):
        token_key_current(node=node)

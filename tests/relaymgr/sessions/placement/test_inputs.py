from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone

from relaymgr.nodes.models import RelayNode, RelayWorker
from relaymgr.sessions.placement.inputs import node_snapshots


@pytest.mark.django_db
def test_all_nodes_and_how_busy_they_are_in_two_queries(
    make_node: Callable[..., RelayNode], django_assert_num_queries: Callable
) -> None:
    busy = make_node("busy", cpu=0.1, last_seen_at=timezone.now() - timedelta(seconds=4))
    RelayWorker.objects.create(node=busy, index=1, server_port=1, client_port=2, capacity=300, free_seats=100)
    make_node("unheard", last_seen_at=None)
    make_node("bare").workers.all().delete()
    with django_assert_num_queries(2):
        snapshots, workers = node_snapshots()
    by_name = {snapshot.node: snapshot for snapshot in snapshots}
    assert by_name["busy"].load == pytest.approx(0.5)  # 200 of 400 seats are taken
    assert by_name["busy"].free_seats == 100  # of one worker: a session is on one
    assert by_name["busy"].load_age_s == pytest.approx(4, abs=1)
    assert by_name["unheard"].load_age_s is None
    assert (by_name["bare"].load, by_name["bare"].free_seats) == (1.0, 0)
    assert [worker.index for worker in workers[busy.pk]] == [0, 1]

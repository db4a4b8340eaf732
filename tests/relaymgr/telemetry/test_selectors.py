from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone

from relaymgr.nodes.models import RelayNode, RelayWorker
from relaymgr.telemetry.selectors import node_loads


@pytest.mark.django_db
def test_loads_of_all_nodes_in_one_query(
    make_node: Callable[..., RelayNode], django_assert_num_queries: Callable
) -> None:
    busy = make_node("busy", cpu=0.5, last_seen_at=timezone.now() - timedelta(seconds=4))
    RelayWorker.objects.create(node=busy, index=1, server_port=1, client_port=2, capacity=100, free_seats=20)
    unheard = make_node("unheard", last_seen_at=None)
    bare = make_node("bare")
    bare.workers.all().delete()
    with django_assert_num_queries(1):
        loads = node_loads()
    assert (loads[busy.pk].cpu, loads[busy.pk].free_seats, loads[busy.pk].capacity) == (0.5, 120, 200)
    assert loads[busy.pk].age_s == pytest.approx(4, abs=1)
    assert loads[unheard.pk].age_s is None
    assert (loads[bare.pk].capacity, loads[bare.pk].load) == (0, 1.0)

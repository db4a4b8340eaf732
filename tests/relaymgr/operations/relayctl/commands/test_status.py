import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.utils import timezone

from relaymgr.nodes.models import RelayNode
from relaymgr.telemetry.models import Lease, NodeSample

from ..conftest import Relayctl


def test_figures_are_those_of_the_front_page(
    session: dict[str, Any], make_node: Callable[..., RelayNode], document: Callable[..., Any], relayctl: Relayctl
) -> None:
    now, node = timezone.now(), RelayNode.objects.get()
    make_node("fra-2", state="suspect", last_seen_at=now - timedelta(seconds=8))
    counts = {"node": node, "probe_ms": 3.0, "cpu": 0.1, "sessions": 1, "seats": 2, "connected": 2}
    for age, packets, drops in ((4, 1000, 5), (2, 3000, 25)):
        NodeSample.objects.create(
            at=now - timedelta(seconds=age),
            counters={"forwarded_packets": packets, "forwarded_bytes": 100 * packets, "drop_replayed": drops},
            **counts,
        )
    Lease.objects.create(name="probe", until=now - timedelta(seconds=1))

    found = document("status")

    assert found["nodes"] == {"suspect": 1, "ready": 1}
    assert found["sessions"] == {"requested": 0, "placed": 0, "ready": 1}
    assert (found["players"], found["seats"]) == (2, {"taken": 2, "capacity": 200})
    assert round(found["packets_per_second"]) == 1000
    assert round(found["drops_per_second"]["replayed"]) == 10
    assert 8 <= found["oldest_probe_age_s"] < 20
    assert found["components"]["background_jobs"]["level"] == "ok"
    assert found["components"]["database"]["level"] == "ok"
    assert any("fra-2" in alert["message"] for alert in found["alerts"])
    shown = relayctl("status").stdout
    assert "1 suspect, 1 ready" in shown and "replayed 10.0" in shown and "fra-2 is suspect" in shown


def test_silence_of_worker_and_beat_is_seen(document: Callable[..., Any]) -> None:
    assert document("status")["components"]["background_jobs"]["level"] == "problem"
    Lease.objects.create(name="probe", until=timezone.now() - timedelta(minutes=5))
    found = re.search(r"(\d+) s ago", document("status")["components"]["background_jobs"]["message"])
    assert found and int(found[1]) >= 300

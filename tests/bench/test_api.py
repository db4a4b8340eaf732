"""The load test runs, in a tiny run; docs/scale.md has the large one."""

import os
from pathlib import Path

import pytest

from bench.api import Plan, measure, stack_for, table


@pytest.mark.flow
@pytest.mark.skipif(
    not (os.environ.get("DATABASE_URL") and os.environ.get("BROKER_URL")), reason="wants PostgreSQL and Redis"
)
def test_a_tiny_run_fills_every_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = Plan(sessions=12, duration=0.5, clients=3, calls=4, rows=300, settle=4.0)
    with stack_for(plan, tmp_path) as stack:
        results = measure(plan, stack)
    counts = {row.what: row.count for row in results.latencies}
    assert counts["create, 3 clients"] == 12
    assert counts["create, 20/s"] == 10
    for call in ("authorize-user", "revoke-user", "GET session", "DELETE"):
        assert counts[call] == 4
    assert "sessions.tasks.events_apply" in results.tasks
    assert results.figures["sessions on the nodes"] == 12
    assert results.figures["s until it held them again"] > 0
    table(results)
    assert "list of 300: the last page" in capsys.readouterr().out

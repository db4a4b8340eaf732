from datetime import UTC, datetime, timedelta

import pytest

from relaymgr.nodes.health.silence import silent_since

NOW = datetime(2026, 11, 30, tzinfo=UTC)


@pytest.mark.parametrize(("seconds_ago", "is_silent"), [(0, False), (6, False), (6.1, True), (3600, True)])
def test_node_is_silent_after_three_probes(seconds_ago: float, is_silent: bool) -> None:
    last_seen_at = NOW - timedelta(seconds=seconds_ago)
    assert silent_since(last_seen_at, NOW) == (last_seen_at if is_silent else None)


def test_node_that_never_answered_has_no_outdated_figures() -> None:
    assert silent_since(None, NOW) is None

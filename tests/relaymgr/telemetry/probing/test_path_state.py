"""The stored path of one player to another: what a report changes, when a sample is due, what is announced."""

from datetime import UTC, datetime, timedelta
from typing import Any

from relaymgr.telemetry.probing.path_state import (
    ANNOUNCE_BURST,
    ANNOUNCE_INTERVAL,
    CHANGE_SPACING,
    MAX_COUNT,
    SAMPLE_SPACING,
    PathState,
)
from relaymgr.telemetry.probing.reports import CheckedPath

START = datetime(2026, 11, 30, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def report(path: str = "ipv4", reason: str = "first_path", **changes: Any) -> CheckedPath:
    figures = {"rtt_ms": 18.0, "relay_rtt_ms": 41.0, "loss": 0.01, "packets": 10, "bytes": 1000}
    return CheckedPath(session="s", seat=0, peer=1, path=path, reason=reason, **{**figures, **changes})


def state() -> PathState:
    return PathState(7, START, START)


def test_a_report_replaces_the_figures_and_adds_the_traffic() -> None:
    path = state()
    path.apply(report(), 7, START + SECOND)
    path.apply(report(rtt_ms=None, relay_rtt_ms=40.0, loss=0.5), 7, START + 2 * SECOND)
    assert (path.path, path.reason, path.since, path.at) == ("ipv4", "first_path", START + SECOND, START + 2 * SECOND)
    assert (path.rtt_ms, path.relay_rtt_ms, path.loss) == (None, 40.0, 0.5)
    assert (path.packets, path.bytes, path.changes) == (20, 2000, 1)


def test_another_reason_for_the_same_path_is_a_change_but_no_new_path() -> None:
    path = state()
    path.apply(report("relay", "no_direct_path"), 7, START + SECOND)
    assert (path.changes, path.since) == (1, START)


def test_traffic_has_a_maximum() -> None:
    path = state()
    path.bytes = MAX_COUNT
    path.apply(report(), 7, START)
    assert path.bytes == MAX_COUNT


def test_a_sample_is_due_at_first_then_at_the_spacing() -> None:
    path = state()
    path.apply(report(), 7, START)
    assert path.is_sample_due
    path.note_sample()
    path.apply(report(), 7, START + SAMPLE_SPACING - SECOND)
    assert not path.is_sample_due
    path.apply(report(), 7, START + SAMPLE_SPACING)
    assert path.is_sample_due


def test_a_change_is_sampled_earlier_but_a_flapping_path_fills_no_table() -> None:
    path = state()
    path.apply(report(), 7, START)
    path.note_sample()
    path.apply(report("relay", "path_failed"), 7, START + CHANGE_SPACING - SECOND)
    assert not path.is_sample_due
    path.apply(report("relay", "path_failed"), 7, START + CHANGE_SPACING)
    assert path.is_sample_due


def test_no_change_is_not_announced() -> None:
    path = state()
    path.apply(report("relay", "none"), 7, START)
    assert path.announce() == 0
    path.apply(report(), 7, START)
    assert path.announce() == 1
    path.apply(report(), 7, START)
    assert path.announce() == 0


def test_a_flapping_path_is_announced_a_few_times_then_at_intervals_with_the_number_of_changes() -> None:
    path, announced = state(), []
    for number in range(20):
        path.apply(
            report(*(("ipv4", "better") if number % 2 else ("relay", "path_failed"))), 7, START + number * SECOND
        )
        announced.append(path.announce())
    assert announced == [1] * ANNOUNCE_BURST + [0] * (20 - ANNOUNCE_BURST)
    path.apply(report("ipv4", "better"), 7, START + ANNOUNCE_INTERVAL)
    assert path.announce() == 20 - ANNOUNCE_BURST

"""Lines to draw: gaps stay gaps, rates come from counters, a boot makes no spike."""

import pytest

from relaymgr.telemetry.series import (
    DAY,
    HOUR,
    OTHER,
    Point,
    counters_grown,
    points_of,
    series_of,
    summary_of,
)

NOW = 1_700_000_000.0


def test_the_grid_ends_with_now_and_is_the_same_a_moment_later() -> None:
    series = series_of([], HOUR, ["cpu"], NOW)
    assert len(series.at) == HOUR.steps and series.at[-1] <= NOW < series.at[-1] + HOUR.step
    assert series_of([], HOUR, ["cpu"], series.at[-1] + HOUR.step - 0.1).at == series.at
    assert DAY.step * DAY.steps == 86_400


def test_what_was_not_heard_is_a_gap() -> None:
    series = series_of([Point(NOW, {"cpu": 0.5})], HOUR, ["cpu"], NOW)
    assert series.lines["cpu"][-1] == 0.5 and set(series.lines["cpu"][:-1]) == {None}
    assert set(series.lines["packets"]) == {None} and series.drops == {}


def test_samples_of_a_step_are_averaged_and_those_outside_left_out() -> None:
    start = HOUR.start(NOW)
    samples = [Point(start, {"cpu": 0.2}), Point(start + 2, {"cpu": 0.4}), Point(start + 4, {"cpu": None})]
    series = series_of([Point(start - 1, {"cpu": 9}), *samples, Point(NOW + 99, {"cpu": 9})], HOUR, ["cpu"], NOW)
    assert series.lines["cpu"][0] == pytest.approx(0.3) and set(series.lines["cpu"][1:]) == {None}


def test_rates_are_what_counters_grew_by() -> None:
    samples = [
        (NOW - 2, {}, {"forwarded_packets": 1_000, "forwarded_bytes": 0, "direct_bytes": 7, "drop_bad_tag": 5}),
        (
            NOW,
            {},
            {"forwarded_packets": 1_200, "forwarded_bytes": 1_000_000, "direct_bytes": 500_007, "drop_bad_tag": 5},
        ),
    ]
    series = series_of(points_of(samples), HOUR, [], NOW)
    assert (series.lines["packets"][-1], series.lines["megabits"][-1]) == (100.0, 4.0)
    assert series.lines["direct_megabits"][-1] == 2.0
    assert series.drops == {}


def test_a_boot_is_no_spike() -> None:
    assert counters_grown({"forwarded_packets": 9_000}, {"forwarded_packets": 3}) == {}
    assert counters_grown({}, {"forwarded_packets": 3}) == {"forwarded_packets": 3}
    assert counters_grown({"a": 1, "b": 2}, {"a": 1, "b": 5}) == {"b": 3}


def test_rare_drops_share_a_line() -> None:
    grown = {f"drop_reason_{n}": n for n in range(1, 9)}
    series = series_of([Point(NOW, {}, grown, 2.0)], HOUR, [], NOW)
    assert list(series.drops) == ["reason_8", "reason_7", "reason_6", "reason_5", "reason_4", OTHER]
    assert series.drops[OTHER][-1] == pytest.approx(3.0)


def test_summary_is_of_what_was_heard() -> None:
    summary = summary_of([None, 1.0, 5.0, None, 3.0, None])
    assert (summary.last, summary.minimum, summary.mean, summary.maximum) == (3.0, 1.0, 3.0, 5.0)
    assert summary_of([None]).last is None

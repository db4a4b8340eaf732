"""The benchmark runs, and reaches its numbers in a small run too; docs/results/placement.md has the large ones."""

import numpy as np
import pytest

from bench.latencies import load, synthetic
from bench.placement import OURS, TOPOLOGIES, Results, measure, table
from bench.placement_picture import draw


@pytest.fixture(scope="module")
def results() -> Results:
    return measure(synthetic(1, players=150), draws=3, groups=12, window=1, seed=1, accuracy_km=100.0)


def regrets(results: Results, telemetry: str, topology: str, rule: str = OURS) -> list[float]:
    return [
        regret
        for (of_telemetry, of_topology, _, _, of_rule), found in results.items()
        if (of_telemetry, of_topology, of_rule) == (telemetry, topology, rule)
        for regret, _ in found
    ]


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_stale_telemetry_of_all_legs_is_nearly_as_good_as_knowing(results: Results, topology: str) -> None:
    found = regrets(results, "full", topology)
    assert np.median(found) <= 0.05
    assert np.percentile(found, 95) <= 0.10


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("telemetry", ["full", "3 probes", "none"])
def test_no_rival_is_better(results: Results, telemetry: str, topology: str) -> None:
    ours = np.mean(regrets(results, telemetry, topology))
    for rival in ("random", "nearest to host", "nearest by distance", "least sum", "least worst leg"):
        theirs = regrets(results, telemetry, topology, rival)
        assert not theirs or ours <= np.mean(theirs) + 0.02, rival


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_three_probes_are_enough_for_most(results: Results, topology: str) -> None:
    assert np.median(regrets(results, "3 probes", topology)) <= 0.15


def test_the_same_seed_gives_the_same_figures(results: Results) -> None:
    again = measure(synthetic(1, players=150), draws=1, groups=2, window=1, seed=1, accuracy_km=100.0)
    once = measure(synthetic(1, players=150), draws=1, groups=2, window=1, seed=1, accuracy_km=100.0)
    assert again == once


def test_matrices_are_read_from_files(tmp_path: object) -> None:
    from pathlib import Path

    folder = Path(str(tmp_path))
    (folder / "a.txt").write_text("0 0.1\n0.2 0\n")
    (folder / "b.txt").write_text("0 0\n0.3 0\n")
    found = load(folder)
    assert found.slices.shape == (2, 2, 2)
    assert found.slices[0, 0, 1] == 100
    assert np.isnan(found.slices[1, 0, 1])


def test_tables_and_picture(results: Results, capsys: pytest.CaptureFixture[str]) -> None:
    table(results, "3 probes", "mesh")
    assert "causeway" in capsys.readouterr().out
    assert draw(results, [OURS, "random"]).startswith("<svg")

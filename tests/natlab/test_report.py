"""What is written of results, without a lab."""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from natlab import picture, programs, report, scenarios
from natlab.pairs import Outcome
from natlab.results import Result, Results, percentile


def result(scenario: str, program: str, seconds: list[float | None], loss: float = 0.0) -> Result:
    made = Result(scenario, program, "2026-11-30", 10.0, loss)
    for each in seconds:
        path = [] if each is None else ["ipv4", "ipv4"]
        made.add(Outcome(each, path, "" if each else "none found in time", 264))
    return made


@pytest.fixture
def results(tmp_path: Path) -> Results:
    found = Results(tmp_path / "results.json")
    for pair in scenarios.PAIRS:
        found.put(result(pair.name, "causeway", [0.02, 0.03] if pair.best else [None, None]))
        found.put(result(pair.name, "raw", [0.02, 0.04] if pair.plain else [None]))
    found.put(result("pcp", "causeway", [0.05]))
    found.put(result("full-cone/full-cone", "causeway", [0.1, 0.4], loss=0.1))
    return found


def test_results_are_kept_and_replaced_by_later_ones(tmp_path: Path, results: Results) -> None:
    results.put(result("pcp", "causeway", [None, 0.5]))
    read = Results(tmp_path / "results.json")
    pcp = read.of(loss=0.0)["pcp", "causeway"]
    assert (pcp.rounds, pcp.direct_ms, pcp.share) == (2, [500.0], 0.5)
    assert pcp.failures == {"none found in time": 1}
    assert pcp.paths == {"ipv4 / ipv4": 1}
    assert read.of(loss=0.1).keys() == {("full-cone/full-cone", "causeway")}
    assert len(read.all()) == len(results.all()) == 2 * 21 + 2


def test_the_page_has_the_figures_of_each_program(results: Results) -> None:
    lines = report.page(results, programs.ALL, "picture.svg", "2 cores (a processor with a long name)").splitlines()
    assert "| Causeway | 14 | 18 | 20 | 30 | 264 |" in lines
    assert "| raw punching each 20 ms | 14 | 14 | 20 | 40 | 264 |" in lines
    assert "| | Causeway | raw punching each 20 ms |" in lines, "programs without results are left out"
    assert "| symmetric, random - symmetric, random | 0 % of 2 | 0 % of 1 |" in lines
    assert (
        "| a symmetric, random home with PCP and NAT-PMP - a symmetric, random home | 100 % of 1, 50 ms | - |" in lines
    )
    assert any("on 2 cores (a" in line for line in lines)
    assert "## With 10 % of all packets lost" in lines
    assert "| Causeway | 1 | 2 | 2 | 100 | 400 |" in lines
    assert all(len(line) <= 100 for line in lines if not line.startswith(("|", "!")))


def test_the_picture_has_a_cell_for_each_pair_and_program(results: Results) -> None:
    drawn = ET.fromstring(picture.matrix(scenarios.PAIRS, programs.ALL, results.of(loss=0.0)))
    name = "{http://www.w3.org/2000/svg}"
    groups = drawn.findall(f"{name}g")
    assert [len(group.findall(f"{name}rect")) for group in groups] == [21, 21]
    texts = [text.text for text in groups[0].iter(f"{name}text")]
    assert (texts.count("100 %"), texts.count("0 %")) == (18, 3)


def test_percentiles() -> None:
    values = [5.0, 1.0, 3.0, 2.0, 4.0]
    assert [percentile(values, share) for share in (0.0, 0.2, 0.5, 0.95, 1.0)] == [1.0, 1.0, 3.0, 5.0, 5.0]
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)

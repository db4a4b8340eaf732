"""Dashboard, alerts and documentation name metrics: here is seen that a process exposes each of them, with its labels.

CAUSEWAY_WRITE_DOCS=1 has the table of docs/observability.md written anew.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

import matchmaker.metrics
import observability.database
import web.metrics
from relaymgr.nodes.models import RelayNode
from relaymgr.operations.metrics import FleetCollector
from tests.support.node_process import node_process

ROOT = Path(__file__).parents[3]
PROMETHEUS = ROOT / "deploy" / "prometheus"
RULES = yaml.safe_load((PROMETHEUS / "causeway.rules.yml").read_text())
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "causeway.json").read_text())
PAGE = ROOT / "docs" / "observability.md"
BEGIN, END = "<!-- metrics: made by the tests, not by hand -->", "<!-- end of metrics -->"

SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",), "info": ("_info",)}
BY_PROMETHEUS = {"job", "instance", "le"}  # labels that it puts there, or the histogram


@dataclass(frozen=True)
class Family:
    who: str
    name: str
    kind: str
    text: str
    labels: tuple[str, ...]

    @property
    def samples(self) -> set[str]:
        return {self.name + suffix for suffix in SUFFIXES[self.kind]}


def _of_module(who: str, module: Any) -> Iterator[Family]:
    for metric in vars(module).values():
        if isinstance(metric, MetricWrapperBase):
            (told,) = metric.describe()
            yield Family(who, told.name, told.type, told.documentation, tuple(metric._labelnames))


def _of_database() -> Iterator[Family]:
    for told in FleetCollector().collect():
        yield Family("database", told.name, told.type, told.documentation, tuple(getattr(told, "_labelnames", ())))


def _of_a_node() -> Iterator[Family]:
    with node_process() as node:
        page = node.call("GET", "/metrics")[1]
    for told in text_string_to_metric_families(page):
        if told.name.startswith("causeway_"):
            labels = sorted({label for sample in told.samples for label in sample.labels})
            yield Family("node", told.name, told.type, told.documentation, tuple(labels))


@pytest.fixture
def families(node: RelayNode) -> list[Family]:
    return [
        *_of_module("manager", web.metrics),
        *_of_module("manager, matchmaker", observability.database),
        *_of_database(),
        *_of_module("matchmaker", matchmaker.metrics),
        *_of_a_node(),
    ]


def expressions() -> Iterator[tuple[str, str, str]]:
    """(where it stands, the expression, the text that names labels)."""
    for alert in ALERTS:
        yield alert["alert"], alert["expr"], alert["annotations"]["summary"]
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"], target["legendFormat"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]["query"], ""


def test_all_names_and_labels_are_exposed(families: list[Family]) -> None:
    by_sample = {sample: family for family in families for sample in family.samples}
    wrong = []
    for where, expression, text in expressions():
        found = re.findall(r"\b(causeway_\w+)(?:\{([^}]*)\})?", expression)
        wrong += [f"{where}: no process exposes {name}" for name, _ in found if name not in by_sample]
        known = {label for name, _ in found if name in by_sample for label in by_sample[name].labels} | BY_PROMETHEUS
        for name, matchers in found:
            labels = set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", matchers))
            if name in by_sample and not labels <= {*by_sample[name].labels, *BY_PROMETHEUS}:
                wrong.append(f"{where}: {name} has no label {labels}")
        used = {label for group in re.findall(r"\bby \(([^)]*)\)", expression) for label in re.split(r",\s*", group)}
        used |= set(re.findall(r"{{\s*(?:\$labels\.)?(\w+)\s*}}", text))
        wrong += [f"{where}: no label {label}" for label in used - known]
    assert not wrong


def test_families_are_named_by_prometheus_conventions(families: list[Family]) -> None:
    names = [family.name for family in families]
    assert len(set(names)) == len(names), "one name, one meaning"
    for family in families:
        assert re.fullmatch(r"causeway_[a-z][a-z_]*", family.name), family.name
        assert not re.search(r"_(ms|milliseconds|percent|kb|total|count)$", family.name), family.name
        assert family.text and family.text.endswith("."), f"{family.name} says what it is"
        forbidden = {
            "session",
            "session_id",
            "player",
            "player_id",
            "ip",
            "address",
            "tenant",
            "token",
            "seat",
            "ticket",
        }
        assert not forbidden & set(family.labels), family.name


def test_every_alert_says_what_to_do_and_stands_in_the_documentation() -> None:
    page = PAGE.read_text()
    for alert in ALERTS:
        assert alert["labels"]["severity"] in ("page", "warn")
        assert alert["annotations"]["summary"]
        runbook, severity = " ".join(alert["annotations"]["runbook"].split()), alert["labels"]["severity"]
        row = f"| `{alert['alert']}` | {severity} | {runbook} |"
        assert row in page, row


def test_no_panel_is_empty_or_stands_in_anothers_place() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        assert panel["type"] == "row" or panel["targets"], panel["title"]
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is in Debian's package prometheus")
@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "rules", PROMETHEUS / "causeway.rules.yml"],
        ["test", "rules", ROOT / "tests" / "deploy" / "causeway.rules.test.yml"],
        ["check", "config", "--syntax-only", PROMETHEUS / "prometheus.yml"],
    ],
)
def test_promtool_is_content(arguments: list[Any]) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_test_expects_every_alert() -> None:
    test = yaml.safe_load((ROOT / "tests" / "deploy" / "causeway.rules.test.yml").read_text())["tests"][0]
    (check,) = test["promql_expr_test"]
    expected = {re.search(r'"(\w+)"', sample["labels"])[1] for sample in check["exp_samples"]}  # type: ignore[index]
    assert expected == {alert["alert"] for alert in ALERTS}


def test_the_documentations_table_is_what_processes_expose(families: list[Family]) -> None:
    rows = [
        f"| {family.who} | `{family.name}` | {family.kind} | {', '.join(family.labels)} | {family.text} |"
        for family in sorted(families, key=lambda family: (family.who, family.name))
    ]
    table = "\n".join(["| who | metric | type | labels | |", "|---|---|---|---|---|", *rows])
    before, rest = PAGE.read_text().split(BEGIN)
    written, after = rest.split(END)
    if os.environ.get("CAUSEWAY_WRITE_DOCS"):
        PAGE.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")
        return
    assert written.strip() == table, "run this test with CAUSEWAY_WRITE_DOCS=1"

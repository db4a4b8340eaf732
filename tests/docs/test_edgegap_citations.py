"""Every rule of EDGEGAP.md that the tree cites has an anchor there, and no other document's rules are cited."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SPECIFICATION = ROOT / "transports/protocol/EDGEGAP.md"
ANCHORS = set(re.findall(r'<a id="([^"]+)"></a>', SPECIFICATION.read_text()))

RULE = r"(?:[WKRLMBS]\d{1,2}|\d{1,2}(?:\.\d)?)"
BREAK = r"\s(?:\s|//|#)*"  # a citation may be wrapped, also in a comment
CITATION = re.compile(rf"EDGEGAP\.md{BREAK}({RULE}(?:(?:-|,{BREAK}| and{BREAK}){RULE}(?![\w.]*\w))*)")
# A rule's number in brackets, or after a "spec" that is not in the repository.
STRAY = re.compile(
    rf"\([WKRLMB]\d{{1,2}}(?:, [WKRLMB]\d{{1,2}})*[):]|\bspec (?:section )?{RULE}\b|ompat(?:ibility)? spec\b"
)
ACCEPTANCE = ROOT / "tests/relaynode/core/test_edgegap_acceptance.py"


def texts() -> dict[str, str]:
    """The tracked text files that people write, but for the specification itself and this test."""
    patterns = ["*.py", "*.c", "*.cs", "*.md", "*.html", "*.json", "*.yml", "*.yaml", "*.toml", "*.mjs"]
    listed = subprocess.run(["git", "ls-files", "--", *patterns], cwd=ROOT, check=True, capture_output=True, text=True)
    paths = [ROOT / name for name in listed.stdout.splitlines()]
    ours = [path for path in paths if path.exists() and path not in (SPECIFICATION, Path(__file__))]
    return {str(path.relative_to(ROOT)): path.read_text() for path in ours}


def cited(text: str) -> set[str]:
    return {rule.lower() for citation in CITATION.findall(text) for rule in re.findall(RULE, citation)}


def test_every_cited_rule_has_an_anchor() -> None:
    found = {rule: name for name, text in texts().items() for rule in cited(text)}
    assert len(found) > 20
    assert {rule: name for rule, name in found.items() if rule not in ANCHORS} == {}


def test_the_tests_of_the_acceptance_checklist_are_named_by_its_rules() -> None:
    names = re.findall(r"def test_(?:w(\d+)|item_(\d+))_", ACCEPTANCE.read_text())
    assert len(names) > 10
    assert {f"w{rule}" if rule else f"item-{item}" for rule, item in names} <= ANCHORS


def test_every_citation_names_the_document() -> None:
    stray = {name: match[0] for name, text in texts().items() for match in STRAY.finditer(text)}
    assert stray == {}


def test_anchors_are_unique() -> None:
    found = re.findall(r'<a id="([^"]+)"></a>', SPECIFICATION.read_text())
    assert len(found) == len(set(found))


def test_rules_that_the_specification_names_exist() -> None:
    named = {rule.lower() for rule in re.findall(r"\b[WKRLMBS]\d{1,2}\b", SPECIFICATION.read_text())}
    assert named <= ANCHORS


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("(EDGEGAP.md R60)", {"r60"}),
        ("EDGEGAP.md R1, R3, M1", {"r1", "r3", "m1"}),
        ("(EDGEGAP.md 5.1-5.6) with", {"5.1", "5.6"}),
        ("# EDGEGAP.md\n    # W16", {"w16"}),
        ("EDGEGAP.md 6.\n", {"6"}),
    ],
)
def test_citations_are_read(text: str, rules: set[str]) -> None:
    assert cited(text) == rules

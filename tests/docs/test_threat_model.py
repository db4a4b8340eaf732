"""docs/threat-model.md names a test for each attack, and each of those tests exists."""

import ast
import re
from functools import cache

import pytest

from tests.docs.pages import DOCS

ROOT = DOCS.parent
PAGE = (DOCS / "threat-model.md").read_text()
ROLES = ["Player", "Tenant", "Node", "Operator", "Network"]
CITED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def sections() -> dict[str, str]:
    _, *parts = re.split(r"^## (.+)$", PAGE, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def rows(section: str) -> list[list[str]]:
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@cache
def functions_of(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def problem_with(path: str, name: str) -> str | None:
    if not (ROOT / path).is_file():
        return f"{path}: no such file"
    return None if name in functions_of(path) else f"{path}: no function {name}"


def test_every_role_has_a_section() -> None:
    assert list(sections()) == ROLES


@pytest.mark.parametrize("role", ROLES)
def test_every_attack_names_what_it_does_what_stops_it_and_a_test(role: str) -> None:
    found = rows(sections()[role])
    assert len(found) > 5
    for row in found:
        assert len(row) == 4, row[0]
        assert all(row), row[0]
        assert CITED.search(row[3]), row[0]
        assert not CITED.sub("", row[3]).strip(", "), row[0]


def test_every_test_that_is_named_exists() -> None:
    cited = CITED.findall(PAGE)
    assert len(cited) > 100
    assert not [problem for path, name in cited if (problem := problem_with(path, name))]


@pytest.mark.parametrize(
    ("path", "name", "problem"),
    [
        ("tests/docs/test_threat_model.py", "test_every_role_has_a_section", None),
        ("tests/docs/test_threat_model.py", "test_gone", "tests/docs/test_threat_model.py: no function test_gone"),
        ("tests/docs/test_gone.py", "test_gone", "tests/docs/test_gone.py: no such file"),
    ],
)
def test_what_does_not_exist_is_found(path: str, name: str, problem: str | None) -> None:
    assert problem_with(path, name) == problem

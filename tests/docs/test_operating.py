"""docs/operating.md tells of every alert, and the commands that docs/ names are commands, with those options."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import get_commands, load_command_class
from typer.main import get_command

from relaymgr.operations.relayctl.app import app
from tests.docs import pages

ROOT = pages.DOCS.parent
PAGE = pages.DOCS / "operating.md"
RULES = yaml.safe_load((ROOT / "deploy" / "prometheus" / "causeway.rules.yml").read_text())
PROGRAM = re.compile(r"(?:\b(?P<program>manage)\.(?:py|sh)|\b(?P<relayctl>relayctl)) +(?P<rest>[^|#;&>`)\"\n]+)")
PAGES = [*sorted(pages.DOCS.glob("*.md")), ROOT / "README.md"]


def test_every_alert_has_a_row_and_every_row_an_alert() -> None:
    alerts = [rule["alert"] for group in RULES["groups"] for rule in group["rules"]]
    told = re.findall(r"^\| `(Causeway\w+)` \|", PAGE.read_text(), re.MULTILINE)
    assert told == alerts


# -- commands


def commands(page: Path) -> Iterator[list[str]]:
    """The words of each command in the page's code, from its name on: ["relayctl", "drain", "NODE"]."""
    fenced = [code for _, code in pages.blocks(page, r"\w*")]
    spans = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", page.read_text())
    for code in [*fenced, *spans]:
        for found in PROGRAM.finditer(code.replace("\\\n", " ")):
            words = found["rest"].split()
            yield ["relayctl", *words] if found["relayctl"] else words


def problem_with(words: list[str]) -> str | None:
    """Why there is no such command; None where it names none, as `relayctl ...` does."""
    known = django_commands()
    if words[0] == "relayctl":
        known, words = relayctl_commands(), words[1:]
    if not words or not re.match("[a-z]", words[0]):
        return None
    name, *rest = words
    if name not in known:
        return f"{name}: no such command"
    unknown = [word for word in rest if word.startswith("-") and word.partition("=")[0] not in known[name]]
    return f"{name}: no option {unknown[0]}" if unknown else None


@cache
def relayctl_commands() -> dict[str, set[str]]:
    group: Any = get_command(app)
    return {
        name: {"--help", *(option for param in command.params for option in param.opts)}
        for name, command in group.commands.items()
    }


@cache
def django_commands() -> dict[str, set[str]]:
    parsers = {
        name: load_command_class(application, name).create_parser("manage.py", name)
        for name, application in get_commands().items()
        if name != "relayctl"
    }
    return {name: set(parser._option_string_actions) for name, parser in parsers.items()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page: Path) -> None:
    problems = [problem for words in commands(page) if (problem := problem_with(words))]
    assert not problems


def test_commands_are_found() -> None:
    found = [" ".join(words) for words in commands(PAGE)]
    assert "relayctl drain NODE" in found
    assert "relayctl audit --hours 24" in found
    assert "migrate --check" in found
    assert "api_key TENANT" in found


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("relayctl drain NODE", None),
        ("relayctl drian NODE", "drian: no such command"),
        ("relayctl drain --now", "drain: no option --now"),
        ("join_key tokyo --uses=5", None),
        ("join_key tokyo --times 5", "join_key: no option --times"),
        ("joinkey tokyo", "joinkey: no such command"),
        ("relayctl ...", None),
    ],
)
def test_what_does_not_exist_is_told(words: str, problem: str | None) -> None:
    assert problem_with(words.split()) == problem

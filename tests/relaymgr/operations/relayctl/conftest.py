"""relayctl in this process, on a session that a real node has."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from relaymgr.operations.relayctl.app import app
from tests.relaymgr.sessions.conftest import process, relay, session

__all__ = ["process", "relay", "session"]

Relayctl = Callable[..., Result]


@pytest.fixture
def relayctl(db: None) -> Relayctl:
    def run(*arguments: str, answer: str = "") -> Result:
        return CliRunner(env={"COLUMNS": "250"}).invoke(
            app, arguments, input=answer, catch_exceptions=False, prog_name="relayctl"
        )

    return run


@pytest.fixture
def document(relayctl: Relayctl) -> Callable[..., Any]:
    """What a command says with --json, when it goes well."""

    def run(*arguments: str) -> Any:
        result = relayctl(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return run

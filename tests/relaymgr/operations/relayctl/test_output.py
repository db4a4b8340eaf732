import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from django.core.management import call_command
from django.db import OperationalError

from relaymgr.nodes.models import RelayNode
from relaymgr.operations.relayctl.commands import nodes
from relaymgr.operations.relayctl.output import printable, table, to_json, words

from .conftest import Relayctl


def test_refusal_is_one_coded_line_on_stderr(relayctl: Relayctl) -> None:
    result = relayctl("drain", "nowhere-1")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("relayctl: node_unknown: ")
    assert result.stderr.count("\n") == 1


def test_refusal_for_scripts_has_the_shape_of_the_api(relayctl: Relayctl) -> None:
    result = relayctl("drain", "nowhere-1", "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert json.loads(result.stderr).keys() == {"message", "code", "details"}
    assert json.loads(result.stderr)["code"] == "node_unknown"


@pytest.mark.parametrize(
    "arguments",
    [
        ("drain",),
        ("drain", "a", "b"),
        ("fly",),
        ("sessions", "--state", "odd"),
        ("sessions", "--limit", "0"),
        ("sessions", "--metadata", "ranked"),
        ("revoke", "3960c873aafd-S", "255"),
        ("revoke", "3960c873aafd-S", "one"),
        ("audit", "--hours", "-1"),
        ("tail", "--type", "everything"),
        ("tail", "--type", "act", "--node", "fra-1"),
    ],
)
def test_what_is_not_understood_is_status_2(relayctl: Relayctl, arguments: tuple[str, ...]) -> None:
    result = relayctl(*arguments)
    assert result.exit_code == 2
    assert "Usage" in result.stderr


def test_database_that_fails_is_a_coded_line_too(relayctl: Relayctl, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise OperationalError("password=secret")

    monkeypatch.setattr(nodes, "node_get", fail)
    result = relayctl("drain", "fra-1")
    assert result.exit_code == 1
    assert result.stderr.startswith("relayctl: database_unavailable: ")
    assert "secret" not in result.output


def test_what_a_terminal_would_obey_is_taken_out(node: RelayNode, relayctl: Relayctl) -> None:
    RelayNode.objects.update(packet_path="xdp", packet_path_reason="\x1b[2J\x1b]0;title\x07 [red]x[/red]\r\n")
    for arguments in (("nodes",), ("nodes", "fra-1")):
        result = relayctl(*arguments)
        assert result.exit_code == 0
        assert not {"\x1b", "\x07", "\r"} & set(result.output)
    assert "[red]x[/red]" in result.output, "names are no markup"


def test_without_arguments_there_is_help(relayctl: Relayctl) -> None:
    result = relayctl()
    assert "status" in result.output and "doctor" in result.output


def test_call_command_runs_it_too(node: RelayNode, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("relayctl", "nodes", "--json")
    assert json.loads(capsys.readouterr().out)["nodes"][0]["name"] == "fra-1"


def test_values_in_words() -> None:
    assert [words(value) for value in (None, "", True, 0, 0.5, 12.34, ["a", "b"], {"k": 1}, [])] == [
        "-",
        "-",
        "yes",
        "0",
        "0.50",
        "12.3",
        "a, b",
        "k=1",
        "-",
    ]
    assert printable("a\u202eb\nc") == "a\\u202eb\\x0ac"


def test_json_is_ascii_and_times_are_iso() -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert to_json({"at": at, "player": "\x1b\u202e"}) == (
        '{"at": "2026-01-02T03:04:05+00:00", "player": "\\u001b\\u202e"}'
    )


def test_json_of_something_unknown_is_an_error_of_ours() -> None:
    with pytest.raises(TypeError):
        to_json({"node": object()})


def test_table_holds_every_row() -> None:
    assert table(("a", "b"), [(1, 2), (3, 4)]).row_count == 2


def test_every_command_can_speak_json(relayctl: Relayctl, document: Callable[..., Any]) -> None:
    for command in ("status", "nodes", "locations", "sessions", "tenants", "keys", "audit"):
        assert isinstance(document(command), dict), command

"""Generates the reference in docs/relayctl.md from the commands. Hidden from help, as it is for developers."""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import typer

EVERYWHERE = ("--json", "--help")


def reference(context: typer.Context) -> None:
    """Print the reference at the end of docs/relayctl.md, as Markdown."""
    group: Any = context.find_root().command
    context = typer.Context(group, info_name="relayctl")
    shown = [command for command in group.commands.values() if not command.hidden]
    typer.echo("## Reference\n\nEvery command accepts `--json` and `--help`.")
    for panel, commands in groupby(shown, key=lambda command: command.rich_help_panel):
        typer.echo(f"\n### {panel}")
        for command in commands:
            typer.echo("\n" + "\n".join(_command(command, context)))


def _command(command: Any, context: typer.Context) -> Iterator[str]:
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    options = [param for param in command.params if param.param_type_name == "option"]
    usage = [param.metavar if param.required else f"[{param.metavar}]" for param in arguments]
    yield f"**`{' '.join(['relayctl', command.name, *usage])}`**"
    yield ""
    yield command.help
    yield ""
    for param in [*arguments, *options]:
        name, text = param.get_help_record(context)
        if not name.startswith(EVERYWHERE):
            yield f"- `{name}` {text}"

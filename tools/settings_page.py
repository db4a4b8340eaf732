"""Prints docs/settings.md: every variable, as the code reads it (`make settings-page`).

The readers of relaymgr/settings/ and relaynode/config.py record each variable; the docstrings of NodeConfig's fields
describe those of a node.
"""

import ast
import importlib
import inspect
import os
import re
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

HEAD = """\
# Settings

This page is generated from the code by `make settings-page`, and a test compares the two. Every setting
is an environment variable that a process reads when it starts. A bad value ends the process with one
line that names the variable. Every process also refuses to start with settings that are unsafe in
production, and says why ([deployment.md](deployment.md#what-is-refused)).

Variables marked * are secrets. They can be read from a file instead:
`SECRET_KEY_FILE=/run/secrets/key` in place of `SECRET_KEY`. An empty variable counts as not set. The
number of requests that a key may send is set for each tenant in the console.
"""

NODE_HEAD = """\

## A relay node

Read by `python -m relaynode` only.

| variable | kind | default | meaning |
|---|---|---|---|
"""


def page() -> str:
    return HEAD + "".join(_manager_sections()) + NODE_HEAD + "".join(_node_rows())


def _manager_sections() -> Iterable[str]:
    section = ""
    for variable in _manager_variables():
        if variable.section != section:
            section = variable.section
            yield f"\n## {section}\n\nRead by: {variable.read_by}.\n\n"
            yield "| variable | kind | default | meaning |\n|---|---|---|---|\n"
        yield _row(variable.name, variable.is_secret, variable.kind, variable.default, variable.help)


def _manager_variables() -> list[Any]:
    with tempfile.TemporaryDirectory() as state:
        for name in list(os.environ):
            if re.match(r"CAUSEWAY_|DATABASE_URL|BROKER_URL|CACHE_URL|SECRET_KEY|ALLOWED_HOSTS", name):
                del os.environ[name]
        os.environ["CAUSEWAY_STATE_DIR"] = state
        return list(importlib.import_module("relaymgr.settings").VARIABLES.values())


def _node_rows() -> Iterable[str]:
    config = importlib.import_module("relaynode.config")
    meanings = _node_meanings(config)
    read = config.variables()
    if missing := read.keys() ^ meanings.keys():
        sys.exit(f"relaynode/config.py: read or described, but not both: {', '.join(sorted(missing))}")
    for name, variable in read.items():
        meaning, _, default = meanings[name].partition("Default: ")
        yield _row(name, variable.is_secret, variable.kind, default.rstrip("."), meaning.strip().rstrip("."))


def _node_meanings(config: Any) -> dict[str, str]:
    """From the docstrings of NodeConfig's fields: `CAUSEWAY_NODE_NAME: what it means. Default: this.`"""
    (fields,) = (
        node for node in ast.parse(inspect.getsource(config)).body if getattr(node, "name", "") == "NodeConfig"
    )
    texts = [
        " ".join(node.value.value.split())
        for node in ast.walk(fields)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]
    found = re.findall(rf"({config.PREFIX}\w+): (.*?)(?= {config.PREFIX}\w+: |$)", "\n".join(texts), re.MULTILINE)
    return dict(found)


def _row(name: str, is_secret: bool, kind: str, default: str, meaning: str) -> str:
    if not meaning:
        sys.exit(f"{name} has no help text: give its reader one")
    return f"| `{name}`{' *' * is_secret} | {kind} | {_code(default)} | {meaning} |\n"


def _code(default: str) -> str:
    return default if " " in default or not default else f"`{default}`"


if __name__ == "__main__":
    print(page(), end="")

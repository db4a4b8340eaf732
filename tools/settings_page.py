"""Prints docs/settings.md: every variable, as the code reads it (`make settings-page`).

The manager's are noted by the readers of relaymgr/settings.py, the node's by those of relaynode/config.py, what a
node's mean by the docstrings of NodeConfig.
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

Made from the code by `make settings-page`; a test compares. All of them are environment variables, read when a process
starts. A bad value stops it with one line that names the variable; what is unsafe in production stops it too
([deployment.md](deployment.md#what-is-refused)).

Those marked * are secrets. They may come from a file instead: `SECRET_KEY_FILE=/run/secrets/key` in place of
`SECRET_KEY`. An empty variable counts as not set. How many requests a key may send is set for each tenant in the admin.
"""

NODE_HEAD = """\

## A relay node

Read by `python -m relaynode` and nothing else.

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

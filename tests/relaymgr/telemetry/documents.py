"""What a node says: the example of docs/node-api.md."""

import json
import re
from pathlib import Path
from typing import Any, cast

_PAGE = (Path(__file__).parents[3] / "docs" / "node-api.md").read_text()


def telemetry() -> dict[str, Any]:
    """The document of the section "Telemetry", whole."""
    found = re.search(r"### Telemetry\s+```json\n(.*?)```", _PAGE, re.DOTALL)
    assert found, "docs/node-api.md has lost its example"
    return cast(dict[str, Any], json.loads(found[1].replace("6f1c...", "6f1c")))

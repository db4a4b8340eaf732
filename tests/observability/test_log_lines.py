import json
import logging
import re
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from observability.log_lines import JsonLines, TextLines, bound, is_json


def record(text: str, *args: object, level: int = logging.INFO, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("relaynode.supervision.node", level, "node.py", 1, text, args, None)
    made.created = datetime(2026, 11, 28, 4, 56, 24, 31000, UTC).timestamp()
    made.__dict__.update(extra)
    return made


def test_a_line_is_one_json_object() -> None:
    line = JsonLines().format(record("session %s opened\non worker %d", "0123456789ab-S", 1))
    assert "\n" not in line
    assert json.loads(line) == {
        "timestamp": "2026-11-28T04:56:24.031Z",
        "level": "info",
        "logger": "relaynode.supervision.node",
        "event": "session 0123456789ab-S opened\non worker 1",
    }


def test_what_is_bound_is_in_all_lines_inside_and_in_none_after() -> None:
    with bound(request_id="abc", trace_id=""):
        with bound(session_id="0123456789ab-S"):
            inner = json.loads(JsonLines().format(record("x")))
        outer = json.loads(JsonLines().format(record("x", session_id="fedcba987654-S", secret="s")))
    assert (inner["request_id"], inner["session_id"]) == ("abc", "0123456789ab-S")
    assert "trace_id" not in inner
    assert outer["session_id"] == "fedcba987654-S"
    assert "secret" not in outer
    assert "request_id" not in json.loads(JsonLines().format(record("x")))


@pytest.mark.parametrize("lines", [JsonLines(), TextLines()])
def test_secrets_and_addresses_are_in_no_part_of_a_line(lines: logging.Formatter) -> None:
    made = record("token=%s from %s", "hunter2", "192.0.2.7", session_id="cw_0123456789ab_hunter2")
    try:
        raise ValueError("seat_key=hunter2 of 192.0.2.7")
    except ValueError:
        made.exc_info = sys.exc_info()
    line = lines.format(made)
    assert "hunter2" not in line
    assert "192.0.2.7" not in line
    assert "ValueError" in line


def test_addresses_are_shown_at_debug() -> None:
    assert "192.0.2.7" in TextLines().format(record("from 192.0.2.7", level=logging.DEBUG))


def test_text_is_for_terminals() -> None:
    assert is_json("json") and not is_json("text")
    script = (
        "from observability import log_lines; log_lines.set_up('INFO', 'auto'); import logging; logging.info('hello')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert json.loads(done.stderr)["event"] == "hello"
    with bound(request_id="abc"):
        line = TextLines().format(record("hello"))
    assert re.fullmatch(r"\S+ INFO    relaynode.supervision.node: hello request_id=abc", line)


def test_the_package_costs_a_node_no_library() -> None:
    script = "import sys; from observability import correlation, exposition, log_lines, tracing; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.split()
    for name in ("structlog", "django", "opentelemetry", "prometheus_client"):
        assert name not in loaded

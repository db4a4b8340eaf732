import json
import logging
import subprocess
import sys

import pytest
from structlog.stdlib import ProcessorFormatter

from observability.log_config import bound, is_json, line_formatter


@pytest.fixture
def json_lines() -> ProcessorFormatter:
    return line_formatter("json")


def record(text: str, *args: object, level: int = logging.INFO, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("relaynode.supervision.node", level, "node.py", 1, text, args, None)
    made.__dict__.update(extra)
    return made


def test_a_line_is_one_json_object(json_lines: ProcessorFormatter) -> None:
    line = json_lines.format(record("session %s opened\non worker %d", "0123456789ab-S", 1))
    assert "\n" not in line
    found = json.loads(line)
    assert found.pop("timestamp").endswith("Z")
    assert found == {
        "level": "info",
        "logger": "relaynode.supervision.node",
        "event": "session 0123456789ab-S opened\non worker 1",
    }


def test_what_is_bound_is_in_all_lines_inside_and_in_none_after(json_lines: ProcessorFormatter) -> None:
    with bound(request_id="abc", trace_id=""):
        with bound(session_id="0123456789ab-S"):
            inner = json.loads(json_lines.format(record("x")))
        outer = json.loads(json_lines.format(record("x", session_id="fedcba987654-S", secret="s")))
    assert (inner["request_id"], inner["session_id"]) == ("abc", "0123456789ab-S")
    assert "trace_id" not in inner
    assert outer["session_id"] == "fedcba987654-S"
    assert "secret" not in outer
    assert "request_id" not in json.loads(json_lines.format(record("x")))


@pytest.mark.parametrize("choice", ["json", "text"])
def test_secrets_and_addresses_are_in_no_part_of_a_line(choice: str) -> None:
    made = record("token=%s from %s", "hunter2", "192.0.2.7", session_id="cw_0123456789ab_hunter2")
    try:
        raise ValueError("seat_key=hunter2 of 192.0.2.7")
    except ValueError:
        made.exc_info = sys.exc_info()
    line = line_formatter(choice).format(made)
    assert "hunter2" not in line
    assert "192.0.2.7" not in line
    assert "ValueError" in line


def test_addresses_are_shown_at_debug() -> None:
    assert "192.0.2.7" in line_formatter("text").format(record("from 192.0.2.7", level=logging.DEBUG))


def test_text_is_for_terminals() -> None:
    assert is_json("json") and not is_json("text")
    script = (
        "from observability import log_config; log_config.set_up('INFO', 'auto'); import logging; logging.info('hello')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert json.loads(done.stderr)["event"] == "hello"
    with bound(request_id="abc"):
        line = line_formatter("text").format(record("hello"))
    assert "hello" in line and line.endswith("request_id=abc")


def test_the_package_loads_neither_django_nor_opentelemetry() -> None:
    script = "import sys; from observability import correlation, exposition, log_config, tracing; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.split()
    for name in ("django", "opentelemetry", "prometheus_client"):
        assert name not in loaded

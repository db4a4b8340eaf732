"""The chain that every line of the manager's processes passes."""

import io
import json
import logging
import logging.config
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from django.conf import settings

from web.log_config import about_session, logging_config

KEY = "cw_0123456789ab_" + "x" * 43


class Lines:
    """What was written since."""

    def __init__(self, choice: str) -> None:
        self.stream = io.StringIO()
        config = logging_config("DEBUG", choice)
        config["handlers"]["stderr"]["stream"] = self.stream
        logging.config.dictConfig(config)

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def last(self) -> dict[str, Any]:
        line: dict[str, Any] = json.loads(self.text.splitlines()[-1])
        return line


@pytest.fixture
def lines() -> Iterator[Lines]:
    yield Lines("json")
    structlog.contextvars.clear_contextvars()
    logging.config.dictConfig(settings.LOGGING)


def test_line_has_the_same_shape_as_a_nodes(lines: Lines) -> None:
    logging.getLogger("relaymgr.x").info(
        "session %s is ready", "0123456789ab-S", extra={"session_id": "0123456789ab-S"}
    )
    line = lines.last
    assert list(line)[:4] == ["timestamp", "level", "logger", "event"]
    assert line["timestamp"].endswith("Z")
    assert (line["level"], line["logger"]) == ("info", "relaymgr.x")
    assert line["event"] == "session 0123456789ab-S is ready"
    assert line["session_id"] == "0123456789ab-S"


def test_structlogs_own_loggers_come_through_the_same_chain(lines: Lines) -> None:
    structlog.get_logger("relaymgr.y").warning("hello", connect_token="abc", players=2)
    assert lines.last["event"] == "hello"
    assert lines.last["connect_token"] == "[hidden]"
    assert lines.last["players"] == 2


def test_what_is_bound_is_in_every_line(lines: Lines) -> None:
    structlog.contextvars.bind_contextvars(request_id="abc")
    about_session("0123456789ab-S")
    logging.getLogger("django.db").error("x")
    assert (lines.last["request_id"], lines.last["session_id"]) == ("abc", "0123456789ab-S")


@pytest.mark.parametrize("choice", ["json", "text"])
def test_no_secret_and_no_address_is_written(choice: str, lines: Lines) -> None:
    lines = Lines(choice)
    try:
        raise RuntimeError(f"Authorization: token {KEY} from 192.0.2.7")
    except RuntimeError:
        logging.getLogger("x").exception("player %s with %s failed", "192.0.2.7", {"seat_key": "hunter2"})
    assert "RuntimeError" in lines.text and "Traceback" in lines.text
    for secret in ("x" * 43, "hunter2", "192.0.2.7"):
        assert secret not in lines.text


def test_addresses_are_shown_at_debug(lines: Lines) -> None:
    logging.getLogger("x").debug("from 192.0.2.7")
    assert lines.last["event"] == "from 192.0.2.7"


def test_local_variables_are_in_no_traceback_at_a_terminal(lines: Lines) -> None:
    lines = Lines("text")
    hunter2 = "value-of-a-local"
    try:
        raise RuntimeError(hunter2[:0])
    except RuntimeError:
        logging.getLogger("x").exception("failed")
    assert "value-of-a-local" not in lines.text.replace('hunter2 = "value-of-a-local"', "")


def test_uvicorn_writes_as_we_do_and_has_no_access_log(lines: Lines) -> None:
    """As after its own configuration, which gives its loggers handlers."""
    from uvicorn.config import LOGGING_CONFIG

    logging.config.dictConfig(LOGGING_CONFIG)
    lines = Lines("json")
    assert not logging.getLogger("uvicorn.access").hasHandlers(), "uvicorn asks this before it writes a line"
    logging.getLogger("uvicorn.error").info("Uvicorn running on %s", "http://127.0.0.1:8000")
    assert lines.last["event"] == "Uvicorn running on http://127.0.0.1:8000"

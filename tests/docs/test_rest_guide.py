"""docs/rest.md is run as it stands, and its table of errors is that of the code."""

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from relaymgr import authentication, errors
from relaymgr.sessions import errors as session_errors
from tests.docs import pages
from tests.flows.stack import running_stack, wait_until

PAGE = pages.DOCS / "rest.md"
PRIVATE_WEBHOOKS = (
    "from relaymgr.tenants.models import Tenant; Tenant.objects.filter(slug='flows').update(private_webhooks=True)"
)


class Backend(ThreadingHTTPServer):
    """The URL of a studio that takes webhooks; keeps what came."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Taking)
        self.taken: list[dict[str, object]] = []


class Taking(BaseHTTPRequestHandler):
    server: Backend

    def do_POST(self) -> None:
        self.server.taken.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def backend() -> Iterator[Backend]:
    server = Backend()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.flow
@pytest.mark.timeout(240)
def test_every_line_prints_what_the_page_shows(tmp_path: Path, backend: Backend) -> None:
    (tmp_path / "stack").mkdir()
    (tmp_path / "shell").mkdir()
    with running_stack(tmp_path / "stack") as stack:
        # What a backend on loopback needs; all else is as it comes.
        stack.manage("shell", "-c", PRIVATE_WEBHOOKS)
        variables = {
            "CAUSEWAY": stack.url,
            "KEY": stack.key,
            "READ_KEY": stack.manage("api_key", "flows", "--scope", "read").strip(),
            "HOOK": f"http://127.0.0.1:{backend.server_port}/",
        }
        problems = pages.run(pages.steps(PAGE), tmp_path / "shell", variables, within=90)
        assert not problems, "\n".join(problems)
        wait_until(lambda: backend.taken, "the webhook that the page asked for")
        assert backend.taken[0]["ready"] is True
        assert backend.taken[0]["webhook_url"] == variables["HOOK"]


def test_the_page_names_the_variables_it_wants() -> None:
    commands = "\n".join(step.command for step in pages.steps(PAGE))
    wanted = set(re.findall(r"\$([A-Z_]+)", commands)) - set(re.findall(r"^([A-Z_]+)=", commands, re.MULTILINE))
    assert wanted == {"CAUSEWAY", "KEY", "READ_KEY", "HOOK"}


def test_every_code_is_in_the_table_of_errors() -> None:
    told = {
        code
        for row in re.findall(r"^\| \d{3} \| ([^|]+) \|", PAGE.read_text(), re.MULTILINE)
        for code in row.split(", ")
    }
    assert {code.strip("`") for code in told} == codes_of_the_api()


def codes_of_the_api() -> set[str]:
    """Of sessions, keys and the framework; calls that only nodes or the admin make are no part of the page."""
    modules = {module.__name__ for module in (authentication, errors, session_errors)}
    raised = {kind.code for kind in family(errors.ApiError) if kind.__module__ in modules}
    by_the_framework = {code for _, code in errors._CODES}
    return raised | by_the_framework | {"unsupported_media_type", "host_unknown", "database_unavailable"}


def family(kind: type[errors.ApiError]) -> Iterator[type[errors.ApiError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from family(child)


@pytest.mark.parametrize(
    ("shown", "printed", "is_shown"),
    [
        ('{"a":1}', '{"a":1}', True),
        ('{"a":1}', '{"a":2}', False),
        ('{"a":...}', '{"a":{"b":2}}', True),
        ("first\n...\nlast", "first\nmore\nand more\nlast", True),
        ("first\n...", "second\n", False),
        ("", "something", False),
    ],
)
def test_ellipsis_stands_for_any_text_and_nothing_else_does(shown: str, printed: str, is_shown: bool) -> None:
    assert pages.fits(shown, printed) is is_shown


def test_what_differs_fails_or_hangs_is_told(tmp_path: Path) -> None:
    steps = [
        pages.Step(1, "A=1", ""),
        pages.Step(2, "echo $A", "1"),
        pages.Step(3, "echo $A", "2"),
        pages.Step(4, "false", ""),
        pages.Step(5, "sleep 60", ""),
        pages.Step(6, "echo never", "never"),
    ]
    problems = pages.run(steps, tmp_path, {}, within=1)
    assert [re.match(r"line (\d)", problem)[1] for problem in problems] == ["3", "4", "5"]  # type: ignore[index]

"""docs/rest.md is run as it stands, and its table of errors is that of the code."""

import json
import os
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from relaymgr import authentication
from relaymgr.nodes.locations.apis import MAX_LOOKUPS
from relaymgr.sessions import errors as session_errors
from relaymgr.sessions.apis.input_serializers import MAX_METADATA
from relaymgr.sessions.apis.sessions import SessionsApi
from relaymgr.sessions.services import MAX_SEATS
from relaymgr.tenants.models import Tenant
from tests.docs import pages
from tests.flows.stack import running_stack
from tests.support.waiting import wait_until
from web import authorization, errors
from web.http.parsers import MAX_DEPTH

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
def test_every_line_prints_what_the_page_shows(tmp_path: Path, backend: Backend) -> None:
    (tmp_path / "stack").mkdir()
    (tmp_path / "shell").mkdir()
    # A busy machine: the best relay is given the time it takes.
    with running_stack(tmp_path / "stack", CAUSEWAY_GRANT_TIMEOUT="10") as stack:
        # What a backend on loopback needs; all else is as it comes.
        stack.manage("shell", "-c", PRIVATE_WEBHOOKS)
        variables = os.environ | {
            "CAUSEWAY": stack.url,
            "KEY": stack.key,
            "READ_KEY": stack.manage("api_key", "flows", "--scope", "read").strip(),
            "HOOK": f"http://127.0.0.1:{backend.server_port}/",
        }
        problems = pages.run(pages.steps(PAGE), tmp_path / "shell", variables, within=400)
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


BY_THE_MANAGER_ITSELF = {"database_unavailable", "database_read_only"}


def codes_of_the_api() -> set[str]:
    """Of sessions, keys and the framework; calls that only nodes or the admin make are no part of the page."""
    modules = {module.__name__ for module in (authentication, authorization, errors, session_errors)}
    raised = {kind.code for kind in family(errors.ApiError) if kind.__module__ in modules}
    by_the_framework = {code for _, code in errors._CODES}
    return raised | by_the_framework | {"unsupported_media_type", "host_unknown", *BY_THE_MANAGER_ITSELF}


SESSION: Any = SessionsApi.InputSerializer().fields
QUERY: Any = SessionsApi.QuerySerializer().fields


@pytest.mark.parametrize(
    ("statement", "value"),
    [
        (r"`idle_timeout` \| ([\d,]+)", SESSION["idle_timeout"].default),
        (r"after which the session ends; (\d+) to", SESSION["idle_timeout"].min_value),
        (r"after which the session ends; \d+ to ([\d,]+)", SESSION["idle_timeout"].max_value),
        (r"`max_lifetime` \| ([\d,]+)", SESSION["max_lifetime"].default),
        (r"\| seconds; (\d+) to", SESSION["max_lifetime"].min_value),
        (r"\| seconds; \d+ to ([\d,]+)", SESSION["max_lifetime"].max_value),
        (r"a flat object of at most ([\d,]+) bytes", MAX_METADATA),
        (r"`limit` is (\d+)", QUERY["limit"].default),
        (r"`limit` is \d+\s+by\s+default\s+and\s+at\s+most\s+(\d+)", QUERY["limit"].max_value),
        (r"`/v1/ips/lookup`\s+accepts\s+up\s+to\s+(\d+)", MAX_LOOKUPS),
        (r"can\s+be\s+read\s+for\s+(\d+)\s+days", settings.SESSION_RETENTION_DAYS),
        (r"each\s+key:\s+([\d,]+)\s+requests", Tenant._meta.get_field("requests_per_minute").default),
        (r"After\s+(\d+)\s+wrong\s+keys", settings.FAILED_AUTHENTICATIONS_PER_MINUTE),
        (r"A\s+session\s+has\s+at\s+most\s+(\d+)\s+seats", MAX_SEATS),
        (r"nested deeper than (\d+) levels", MAX_DEPTH),
    ],
)
def test_numbers(statement: str, value: float) -> None:
    found = re.search(statement, PAGE.read_text())
    assert found, statement
    assert int(found[1].replace(",", "")) == value


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

"""A real server below a path, which a proxy in front of it takes off."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.flows.stack import ROOT
from tests.support.waiting import wait_until

pytestmark = pytest.mark.flow
PREFIX = "/causeway"


@pytest.fixture(params=["--root-path", "CAUSEWAY_ROOT_PATH"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[httpx.Client]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    argv = [sys.executable, "-m", "uvicorn", "relaymgr.asgi:application", "--port", str(port), "--no-proxy-headers"]
    environment = os.environ | {"CAUSEWAY_STATE_DIR": str(tmp_path), "DATABASE_URL": "", "BROKER_URL": ""}
    if request.param.startswith("--"):
        argv += [request.param, PREFIX]
    else:
        environment[request.param] = PREFIX
    log = (tmp_path / "web.log").open("wb")
    process = subprocess.Popen(argv, cwd=ROOT, env=environment, stdout=log, stderr=log)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        try:
            wait_until(lambda: answers(client), f"the server; see {tmp_path}")
            yield client
        finally:
            process.terminate()
            process.wait(30)
            log.close()


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/docs").status_code == 200
    except httpx.HTTPError:
        return False


def test_every_link_has_the_path_and_leads_somewhere(server: httpx.Client) -> None:
    links = set()
    for page in ("/docs", "/admin/login/"):
        html = server.get(page).text
        links |= set(re.findall(r"(?:href|src|action)=\"(/[^\"#?]*)", html))
    assert len(links) > 5
    for link in links:
        assert link.startswith(f"{PREFIX}/"), link
        assert server.get(link.removeprefix(PREFIX)).status_code in (200, 302), link
    assert server.get("/").headers["Location"] == f"{PREFIX}/docs"
    assert server.get("/admin/").headers["Location"].startswith(f"{PREFIX}/admin/login/")
    assert server.get("/v1/openapi.json").json()["servers"] == [{"url": PREFIX}]
    matchmaker = server.get("/matchmaker/swagger/v1/swagger.json").json()
    assert matchmaker["servers"] == [{"url": f"{PREFIX}/matchmaker"}]
    monitor = server.get("/monitor").json()
    assert monitor["spec_url"].endswith(f"{PREFIX}/v1/openapi.json") and monitor["host_url"].endswith(f"{PREFIX}/")


def test_what_depends_on_the_path_of_a_request_sees_the_inner_one(server: httpx.Client) -> None:
    assert server.get("/v1/ip").headers["Cache-Control"] == "no-store"
    assert server.get("/v1/nothing").json()["code"] == "not_found"
    assert "html" in server.get("/admin/nothing/").headers.get("Content-Type", "html")

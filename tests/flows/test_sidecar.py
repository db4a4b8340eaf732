"""A pair of sidecars carries unmodified programs: iperf in UDP mode both ways, and a DNS server with dig."""

import contextlib
import os
import re
import shutil
import subprocess
import time

import pytest

from tests.causeway_client.granted import GrantedSession
from tests.causeway_client.links import listening_address, ready_line, start_sidecar
from tests.support.node_process import free_ports, node_process

pytestmark = pytest.mark.flow

PAYLOAD = 1000  # bytes; a relayed packet carries 1,182


def program(name):
    """Its path. Without it the test is skipped on a laptop, and fails in CI."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{name} is not installed")
        pytest.skip(f"{name} is not installed")
    return found


@contextlib.contextmanager
def running(*command):
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    with process:
        try:
            yield process
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def node():
    with node_process() as node:
        yield node


@pytest.fixture(params=["native", "edgegap"])
async def carried(request, node):
    """(port the server is to listen on, port the client connects to), with a sidecar pair in between."""
    session = GrantedSession(node)
    game = free_ports(1)
    with contextlib.ExitStack() as stack:
        sides = [
            start_sidecar(session, 0, "host", "--game", f"127.0.0.1:{game}", dialect=request.param),
            start_sidecar(session, 1, "join", "--listen", "127.0.0.1:0", dialect=request.param),
        ]
        for side in sides:
            stack.enter_context(side)
            stack.callback(side.terminate)
        await ready_line(sides[0])
        yield game, (await listening_address(sides[1]))[1]


@pytest.mark.parametrize("direction", [[], ["--reverse"]], ids=["up", "down"])
def test_iperf_measures_a_stream_without_loss(carried, direction):
    iperf = program("iperf")
    game, entrance = carried
    with running(iperf, "--udp", "--server", "--bind", "127.0.0.1", "--port", str(game)) as server:
        wait_for_output(server, "listening")
        measured = subprocess.run(
            [
                *(iperf, "--udp", "--client", "127.0.0.1", "--port", str(entrance), "--enhanced"),
                *("--len", str(PAYLOAD), "--bandwidth", "800k", "--time", "3", *direction),
            ],
            capture_output=True,
            text=True,
            timeout=60,
        )
    lost, total = (int(n) for n in re.findall(r"(\d+)/ *(\d+) +\(", measured.stdout)[-1])
    assert total >= 280, measured.stdout  # 100 packets a second for 3 s
    assert lost == 0, measured.stdout


def test_a_dns_server_answers_dig(carried, tmp_path):
    dnsmasq, dig = program("dnsmasq"), program("dig")
    game, entrance = carried
    serve = ("--keep-in-foreground", "--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--log-facility=-")
    where = (f"--port={game}", "--listen-address=127.0.0.1", "--bind-interfaces", f"--pid-file={tmp_path}/pid")
    with running(dnsmasq, *serve, *where, "--address=/game.example/192.0.2.77") as server:
        wait_for_output(server, "started")
        for _ in range(5):  # each from another local port
            asked = subprocess.run(
                [dig, "@127.0.0.1", "-p", str(entrance), "game.example", "A", "+short", "+tries=3", "+timeout=3"],
                capture_output=True,
                text=True,
                timeout=30,
            )
            assert asked.stdout.strip() == "192.0.2.77", asked.stdout + asked.stderr


def wait_for_output(process, text, seconds=60.0):
    """Until the program says so."""
    deadline = time.monotonic() + seconds
    os.set_blocking(process.stdout.fileno(), False)
    said = b""
    while text.encode() not in said.lower():
        assert time.monotonic() < deadline and process.poll() is None, said.decode()
        said += process.stdout.read() or b""
        time.sleep(0.02)

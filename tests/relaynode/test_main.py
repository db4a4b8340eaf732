"""How the process starts and ends: one clear line and an exit status when it cannot."""

import os
import signal
import socket
import stat
import subprocess
import sys

import pytest

from tests.support.node_process import NodeProcess, node_process
from tests.support.waiting import wait_until


@pytest.fixture
def node():
    made = NodeProcess()
    yield made
    made.close()


def failed_start(node: NodeProcess) -> tuple[int, str]:
    """(exit status, last line said)."""
    status = node.start(wait=False).wait(15)
    return status, node.log.strip().splitlines()[-1]


def test_a_bad_setting_is_named_in_one_line():
    node = NodeProcess(DRAIN_TIMEOUT="soon")
    status, _ = failed_start(node)
    assert status == 2
    assert node.log == "relaynode: CAUSEWAY_NODE_DRAIN_TIMEOUT must be a number from 0 to 86400\n"
    node.close()


@pytest.mark.parametrize(
    ("settings", "variable"),
    [({"CONTROL_KEY": ""}, "CONTROL_KEY"), ({"MANAGER_URL": "http://127.0.0.1:1"}, "JOIN_KEY")],
)
def test_a_key_that_is_needed_is_asked_for(settings, variable):
    node = NodeProcess(**settings)
    status, line = failed_start(node)
    assert (status, line.split()[1]) == (2, f"CAUSEWAY_NODE_{variable}")
    node.close()


@pytest.mark.parametrize("which", ["server_port", "client_port"])
def test_a_udp_port_in_use_is_named(node, which):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("", getattr(node, which)))
        status, line = failed_start(node)
    assert status == 3
    assert line.startswith(f"relaynode: UDP port {getattr(node, which)} ")
    assert "another process has it" in line
    assert "Traceback" not in node.log


def test_a_control_port_in_use_is_named(node):
    with socket.create_server(("127.0.0.1", node.control_port)):
        status, line = failed_start(node)
    assert (status, f"TCP port {node.control_port} " in line) == (3, True)


def test_a_port_that_is_free_a_moment_later_is_waited_for(node):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("", node.server_port))
        node.start(wait=False)
        # It is at the ports when its state folder is there; only then let go.
        wait_until(node.state_dir.exists)
    wait_until(node.is_healthy)


def test_a_beacon_port_in_use_is_done_without(node):
    with socket.create_server(("", node.client_port)):
        node.start()
        assert node.is_healthy()


def test_an_unusable_state_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    node = NodeProcess(STATE_DIR=str(tmp_path / "file" / "state"))
    status, line = failed_start(node)
    assert (status, "state folder" in line) == (5, True)
    node.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_with_all_its_workers(node, number):
    node.start()
    workers = node.worker_pids()
    assert node.signal(number) == 0
    assert len(workers) == 1
    assert not any(is_alive(pid) for pid in workers)


def test_workers_do_not_outlive_a_parent_that_was_killed(node):
    node.start()
    workers = node.worker_pids()
    node.kill()
    wait_until(lambda: not any(is_alive(pid) for pid in workers))


def test_a_signal_to_the_workers_does_not_stop_them(node):
    """A terminal's Ctrl-C or a service manager reaches them, too; only the parent knows when all has been said."""
    node.start()
    before = node.worker_pids()
    for pid in before:
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGINT)
    node.telemetry()
    assert node.worker_pids() == before
    assert node.is_healthy()


def test_state_is_readable_by_its_user_only():
    with node_process() as node:
        node.delete_session("3960c873aafd-S")
        wait_until((node.state_dir / "sessions.jsonl").exists)
        assert stat.S_IMODE(node.state_dir.stat().st_mode) == 0o700
        assert stat.S_IMODE((node.state_dir / "sessions.jsonl").stat().st_mode) == 0o600


def test_workers_are_given_no_key_in_their_environment():
    with node_process() as node:
        for pid in node.worker_pids():
            with open(f"/proc/{pid}/environ", "rb") as file:
                assert b"CAUSEWAY_NODE_" not in file.read()


def test_it_runs_without_uvloop(tmp_path):
    """Where uvloop has no wheel, asyncio's own loop does."""
    (tmp_path / "uvloop.py").write_text("raise ImportError")
    program = "import relaynode.supervision.event_loop as e, asyncio; print(e.run(asyncio.sleep(0, 'ran')), e.uvloop)"
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}."}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=20)
    assert done.stdout.split() == ["ran", "None"], done.stderr


def is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False

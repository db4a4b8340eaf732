import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from observability import exposition
from tests.support.node_process import ROOT, free_ports
from tests.support.waiting import wait_until

KEY = "key-of-the-metrics"


def get(url: str, authorization: str = "") -> tuple[int, str]:
    request = urllib.request.Request(url, headers={"Authorization": authorization} if authorization else {})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""
    except OSError:
        return 0, ""


def test_a_port_is_read_with_the_key_alone() -> None:
    port = free_ports(1)
    observed: list[int] = []
    exposition.serve(port, host="127.0.0.1", key=KEY, observe=lambda: observed.append(1))
    url = f"http://127.0.0.1:{port}/metrics"
    assert get(url)[0] == get(url, "Bearer x")[0] == get(url, KEY)[0] == 401
    assert get(f"http://127.0.0.1:{port}/", f"Bearer {KEY}")[0] == 404
    assert not observed, "nothing is done for unauthenticated callers"
    status, page = get(url, f"Bearer {KEY}")
    assert status == 200 and "process_resident_memory_bytes" in page
    assert len(observed) == 1


def test_a_port_that_is_taken_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        exposition.serve(taken.getsockname()[1], host="127.0.0.1", key="")
    assert "no metrics at 127.0.0.1" in caplog.text


def test_several_web_processes_tell_of_all(tmp_path: Path) -> None:
    """`uvicorn --workers 2`: whichever answers, the counts are those of both; those of a dead one stay."""
    port = free_ports(1)
    argv = [sys.executable, "-m", "uvicorn", "tests.observability.counting_app:application"]
    argv += ["--workers", "2", "--lifespan", "off", "--port", str(port)]
    base = f"http://127.0.0.1:{port}"

    def count() -> float:
        page = get(f"{base}/metrics")[1]
        return next((float(line.split()[-1]) for line in page.splitlines() if line.startswith("asked_total")), 0.0)

    def counters() -> list[int]:
        return [int(file.stem.rpartition("_")[2]) for file in tmp_path.glob("causeway-metrics-*/counter_*.db")]

    with (tmp_path / "log").open("wb") as log:
        environment = {**os.environ, "TMPDIR": str(tmp_path)}
        server = subprocess.Popen(argv, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_until(lambda: get(base)[0] == 200 and len(counters()) == 2, within=60)
        before = count()
        for _ in range(40):
            assert get(base)[0] == 200
        assert {count() for _ in range(10)} == {before + 40}
        (folder,) = tmp_path.glob("causeway-metrics-*")
        assert folder.stat().st_mode & 0o777 == 0o700
        os.kill(counters()[0], signal.SIGKILL)
        wait_until(lambda: count() == before + 40, within=60)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()

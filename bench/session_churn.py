"""What a node keeps of sessions that are over: memory and snapshot before, during and after many PUT + DELETE.

`python -m bench.session_churn [sessions] [seats]`: one real node, on loopback, by its control API.
"""

import argparse
import http.client
import json
import os
import time
from pathlib import Path
from typing import Any

from tests.support.grants import grant_document
from tests.support.node_process import NodeProcess, node_process

FIRST_TOKEN = 0x0100_0000
LIFETIME = 4 * 3600  # seconds: what the manager gives a session by default


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sessions", type=int, nargs="?", default=9_000)
    parser.add_argument("seats", type=int, nargs="?", default=254)
    parser.add_argument("--settle", type=float, default=60.0, help="Seconds to wait before the last row.")
    chosen = parser.parse_args()
    with node_process(CAPACITY="10000") as node:
        print("| moment | worker, MB | main process, MB | snapshot, MB |\n|---|---|---|---|")
        report(node, "before")
        started = time.monotonic()
        churn(node, chosen.sessions, chosen.seats)
        seconds = time.monotonic() - started
        report(node, f"after {chosen.sessions} PUT + DELETE of {chosen.seats} seats in {seconds:.0f} s")
        time.sleep(chosen.settle)
        report(node, f"{chosen.settle:.0f} s later")


def churn(node: NodeProcess, sessions: int, seats: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", node.control_port, timeout=30)
    headers = {"Authorization": f"Bearer {node.control_key}"}

    def call(method: str, path: str, body: object = None) -> None:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        content = answer.read()
        assert answer.status in (200, 204), content

    for number in range(sessions):
        session = f"{number:012x}-S"
        call("PUT", f"/sessions/{session}", grant(session, number, seats))
        call("DELETE", f"/sessions/{session}?reason=deleted")
    connection.close()


def grant(session: str, number: int, seats: int) -> dict[str, Any]:
    tokens = [FIRST_TOKEN + 256 * seat for seat in range(seats)]
    expires_at = time.time() + LIFETIME
    return grant_document(expires_at=expires_at, session=session, token=FIRST_TOKEN + number, tokens=tokens)


def report(node: NodeProcess, moment: str) -> None:
    figures = [memory(pid) for pid in (node.worker_pids()[0], node.pid)]
    figures.append(sum(file.stat().st_size for file in node.state_dir.glob("sessions*")))
    print(f"| {moment} |" + "|".join(f" {figure / 1e6:.1f} " for figure in figures) + "|", flush=True)


def memory(pid: int) -> int:
    """Resident bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()

"""How soon a revoked or deleted player is cut off: `make bench-revoke`.

Starts the whole stack, then in each round makes a session with a host that answers every packet, lets one player send
500 packets a second and never stop, revokes it (or deletes the session) over REST, and notes the last packet that got
through either way after the response had come. Rounds alternate between both acts and both dialects.
"""

import argparse
import asyncio
import itertools
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.flows.raw import open_stubborn
from tests.flows.stack import Stack, running_stack

RATE = 500
WATCH = 0.8  # seconds after the response; a packet later than 0.5 breaks the promise


async def one_round(stack: Stack, act: str, dialect: str) -> tuple[float, float]:
    """(seconds until the response, seconds from the response to the last packet or 0.0)."""
    session = create(stack)
    host, player = await open_stubborn(session, 0, "edgegap"), await open_stubborn(session, 1, dialect)
    host.send(b"\1\0\0\0")  # binds the host's address; connection id 1 may not exist and is dropped
    streaming = asyncio.create_task(stream(player))
    while len(player.arrivals) < 50:
        await asyncio.sleep(0.005)
    asked = time.monotonic()
    await asyncio.to_thread(cut_off, stack, session, act)
    answered = time.monotonic()
    await asyncio.sleep(WATCH)
    streaming.cancel()
    last = max(host.arrivals[-1], player.arrivals[-1])
    host.close()
    player.close()
    if act == "revoke":
        cut_off(stack, session, "delete")
    return answered - asked, max(0.0, last - answered)


async def stream(player: Any) -> None:
    while True:
        player.send(b"x" * 100)
        await asyncio.sleep(1 / RATE)


def create(stack: Stack) -> dict[str, Any]:
    answer = stack.api.post("/v1/relays/sessions", json={"users": [{"ip": "192.0.2.1"}, {"ip": "192.0.2.2"}]})
    assert answer.status_code == 200, answer.text
    session: dict[str, Any] = answer.json()
    return session


def cut_off(stack: Stack, session: dict[str, Any], act: str) -> None:
    if act == "delete":
        answer = stack.api.delete(f"/v1/relays/sessions/{session['session_id']}")
    else:
        token = session["session_users"][1]["authorization_token"]
        body = {"session_id": session["session_id"], "authorization_token": token}
        answer = stack.api.post("/v1/relays/sessions:revoke-user", json=body)
    assert answer.status_code in (200, 204), answer.text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    rounds = parser.parse_args().rounds
    kinds = itertools.cycle(itertools.product(("revoke", "delete"), ("edgegap", "native")))
    results: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder, running_stack(Path(folder)) as stack:
        for kind in itertools.islice(kinds, rounds):
            results.setdefault(kind, []).append(asyncio.run(one_round(stack, *kind)))
    print(f"{'':18}{'rounds':>7}{'response ms: median':>21}{'max':>8}{'last packet after it ms: median':>33}{'max':>8}")
    for (act, dialect), rows in results.items():
        responses, lasts = ([row[n] * 1000 for row in rows] for n in (0, 1))
        print(
            f"{act:8}{dialect:10}{len(rows):>7}{statistics.median(responses):>21.1f}{max(responses):>8.1f}"
            f"{statistics.median(lasts):>33.2f}{max(lasts):>8.2f}"
        )
    late = sum(last > 0.5 for rows in results.values() for _, last in rows)
    print(f"rounds with a packet later than 0.5 s after the response: {late} of {rounds}")


if __name__ == "__main__":
    main()

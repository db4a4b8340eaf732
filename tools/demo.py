"""`make demo`: starts Causeway on this machine, matches four players by their tickets, and lets them play over UDP.

A host answers every packet of three players, who send 30 packets per second each for 15 seconds. They use the native
dialect in the direct mode "direct": the relay carries the first packets, and then they exchange them directly. Two
other players use the edgegap dialect, in a session of their own. Then one player is revoked, and the packets that still
reach it are counted. All printed figures are measured.
"""

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import httpx  # noqa: E402
from rich.table import Table  # noqa: E402

from causeway_client.protocol.errors import ConnectionFailed  # noqa: E402
from tools.demo_game import DemoFailed, console, edgegap_game, native_game, play  # noqa: E402
from tools.demo_processes import STATE, manage, packet_path, running, start_up, stop, wait_until_up  # noqa: E402

# Keys and password of the last run, until `make clean`. Like the whole folder, readable by their owner only.
ACCESS = STATE / "demo.json"
PROFILE = ROOT / "examples" / "profiles" / "arena.json"

# Round-trip times of four players to the three locations, which a game measures and sends with its ticket.
PLAYERS: list[dict[str, Any]] = [
    {"name": "host", "ip": "192.0.2.10", "beacons": {"Frankfurt": 18, "Ashburn": 95, "Singapore": 170}},
    {"name": "anna", "ip": "192.0.2.20", "beacons": {"Frankfurt": 31, "Ashburn": 88, "Singapore": 190}},
    {"name": "ben", "ip": "192.0.2.30", "beacons": {"Frankfurt": 92, "Ashburn": 14, "Singapore": 230}},
    {"name": "cleo", "ip": "192.0.2.40", "beacons": {"Frankfurt": 44, "Ashburn": 110, "Singapore": 150}},
]
# Two players of a game that was made for Edgegap's relays, in a session that its backend creates.
EDGEGAP_PLAYERS: list[dict[str, Any]] = [
    {"name": "dora", "ip": "192.0.2.50", "latencies": {"frankfurt": 22}},
    {"name": "emil", "ip": "192.0.2.60", "latencies": {"frankfurt": 27}},
]


def show_placement(placement: dict[str, Any]) -> None:
    table = Table(title="Why this relay: every considered node and its cost")
    for name in ("node", "location", "cost ms", "cost terms", "chosen"):
        table.add_column(name)
    for candidate in placement["considered_nodes"]:
        cost = candidate["cost"]
        terms = ", ".join(f"{term['name']} {term['ms']:.1f}" for term in candidate["terms"])
        table.add_row(
            candidate["node"],
            candidate["location"],
            "-" if cost is None else f"{cost:.1f}",
            ", ".join(candidate["excluded_by"]) or terms,
            "yes" if candidate["node"] == placement["chosen"] else "",
        )
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make demo ARGS=...", description=__doc__)
    parser.add_argument("--once", action="store_true", help="stop everything afterwards")
    parser.add_argument("--stop", action="store_true", help="only stop a running demo")
    parser.add_argument("--port", type=int, default=8000, help="port of the web server (%(default)s)")
    parser.add_argument("--relay-port", type=int, default=31000, help="first UDP port of the relays (%(default)s)")
    parser.add_argument("--seconds", type=float, default=15, help="duration of the game (%(default)s)")
    options = parser.parse_args()
    if not 1 <= options.seconds <= 3600:
        parser.error("--seconds must be from 1 to 3600")
    try:
        if options.stop:
            stop()
        else:
            demo(options)
    except (DemoFailed, ConnectionFailed, httpx.HTTPError, OSError) as failure:
        console.print(f"[bold red]Failed:[/] {failure or type(failure).__name__}")
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("\nInterrupted." + " `make stop` ends the remaining processes." * bool(running()))
        sys.exit(130)


def demo(options: argparse.Namespace) -> None:
    found = running()
    if found:
        console.print(f"Already running at {found.url}. To use other ports, run `make stop` first.")
    up = found or start_up(options.port, options.relay_port)
    is_kept = False
    try:
        wait_until_up(up.url)
        is_kept = not options.once
        console.print(f"Manager, worker, beat, matchmaker and three relay nodes are up at {up.url}")
        console.print(f"Packet path of the nodes: {packet_path()}")
        access = access_of_last_run(up.url) or new_access()
        with httpx.Client(base_url=up.url, headers={"Authorization": f"token {access['key']}"}, timeout=10) as api:
            run_match(api, access["players_key"], options.seconds)
        if is_kept:
            show_what_to_do_next(up.url, access)
    finally:
        if not is_kept and running():
            stop()


def access_of_last_run(url: str) -> dict[str, str] | None:
    """The keys and the password, if they still work."""
    try:
        access = json.loads(ACCESS.read_text())
        headers = {"Authorization": f"token {access['key']}"}
        works = httpx.get(f"{url}/v1/relays/sessions", headers=headers, timeout=10).status_code == 200
        return {name: str(access[name]) for name in ("key", "players_key", "username", "password")} if works else None
    except (OSError, ValueError, KeyError, TypeError):  # missing or incomplete
        return None


def new_access() -> dict[str, str]:
    key = manage("api_key", "demo", "--create-tenant", "--direct-mode", "direct")
    players_key = manage("api_key", "demo", "--scope", "matchmaker")
    username, password = manage("admin_login").split()
    access = {"key": key, "players_key": players_key, "username": username, "password": password}
    draft = ACCESS.with_suffix(".new")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600)
    draft.write_text(json.dumps(access))
    draft.replace(ACCESS)
    return access


def run_match(api: httpx.Client, players_key: str, seconds: float) -> None:
    """Tickets, a match, its session, the game."""
    body = {"config": json.loads(PROFILE.read_text()), "note": "made by the demo", "activate": True}
    api.post("/matchmaker/profiles/arena/versions", json=body).raise_for_status()
    with httpx.Client(
        base_url=api.base_url.join("/matchmaker"), headers={"Authorization": players_key}, timeout=20
    ) as game:
        tickets = [open_ticket(game, player) for player in PLAYERS]
        last = time.monotonic()
        assignments = [wait_for_assignment(game, ticket) for ticket in tickets]
    took = (time.monotonic() - last) * 1000
    console.print(f"Four tickets, one match: all four were HOST_ASSIGNED {took:.0f} ms after the last ticket")
    session = api.get(f"/v1/relays/sessions/{assignments[0]['request_id']}").raise_for_status().json()
    show_placement(api.get(session["placement"]).raise_for_status().json())
    named = zip(assignments, PLAYERS, strict=True)
    names = [player["name"] for _, player in sorted(named, key=lambda pair: pair[0]["seat"])]
    edgegap_session = create_edgegap_session(api)
    edgegap_names = [player["name"] for player in EDGEGAP_PLAYERS]
    games = [native_game(session, names), edgegap_game(edgegap_session, edgegap_names)]
    asyncio.run(play(games, api, seconds))
    for each in (session, edgegap_session):
        api.delete(f"/v1/relays/sessions/{each['session_id']}").raise_for_status()
    console.print("Sessions deleted. [bold green]0 packets lost[/] in both dialects.")
    page = f"/admin/relay_sessions/relaysession/{session['session_id']}/change/"
    console.print(f"The paths of each pair over time: {api.base_url.join(page)}", soft_wrap=True)


def create_edgegap_session(api: httpx.Client) -> dict[str, Any]:
    users = [{"ip": player["ip"], "latencies": player["latencies"]} for player in EDGEGAP_PLAYERS]
    session: dict[str, Any] = api.post("/v1/relays/sessions", json={"users": users}).raise_for_status().json()
    return session


def open_ticket(game: httpx.Client, player: dict[str, Any]) -> str:
    body = {"profile": "arena", "player_ip": player["ip"], "attributes": {"beacons": player["beacons"]}}
    answer = game.post("/tickets", json=body)
    if answer.status_code != 201:
        raise DemoFailed(f"the ticket was refused: {answer.text}")
    return str(answer.json()["id"])


def wait_for_assignment(game: httpx.Client, ticket: str) -> dict[str, Any]:
    """Follows the ticket's events until its final status."""
    shown: dict[str, Any] = {}
    with game.stream("GET", f"/tickets/{ticket}/events", headers={"Accept": "text/event-stream"}) as stream:
        for line in stream.iter_lines():
            field, _, value = line.partition(": ")
            if field == "data":
                shown = json.loads(value)
    if shown.get("status") != "HOST_ASSIGNED":
        raise DemoFailed(f"the ticket was not matched: {shown.get('status')} {shown.get('reason')}")
    return dict(shown["assignment"])


def show_what_to_do_next(url: str, access: dict[str, str]) -> None:
    python = Path(sys.executable)
    key, players_key = access["key"], access["players_key"]
    body = json.dumps({"users": [{"ip": "192.0.2.10"}, {"ip": "192.0.2.20"}]})
    console.print(
        f"""
All processes continue to run. Look around:

  Console    {url}/admin/
             user {access["username"]}, password {access["password"]} (valid until `make clean`)
  API docs   {url}/docs
  Stop       make stop

Play the example game, in two to four terminals (with a window: examples/arena/README.md):

CAUSEWAY_KEY={players_key} \\
  {python} -m examples.arena --headless --url {url}/matchmaker

Create a session, with a key of the tenant "demo":

curl -s {url}/v1/relays/sessions \\
  -H 'Authorization: token {key}' \\
  -H 'Content-Type: application/json' \\
  -d '{body}'
""",
        highlight=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()

"""`make demo`: start Causeway on this machine, match four players by their tickets, and let them play over real UDP.

One host and three players, in both dialects, send 30 packets a second each for 15 seconds; the host answers every one.
Then one player is revoked, and what still reaches it is counted. Everything printed was just measured.
"""

import argparse
import asyncio
import contextlib
import fcntl
import json
import os
import re
import signal
import statistics
import struct
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import httpx  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.live import Live  # noqa: E402
from rich.table import Table  # noqa: E402

from causeway_client import asyncio_udp, edgegap  # noqa: E402
from causeway_client.protocol.errors import ConnectionFailed  # noqa: E402

STATE = Path(os.environ.get("CAUSEWAY_STATE_DIR", ROOT / "var"))
# Locked by the `manage.py up` it tells of, for as long as that lives: a number alone may be another process by now.
RUNNING, LOG = STATE / "up.running", STATE / "log" / "up.log"
# Keys and the password of the last run, until `make clean`: readable by their owner only, as is the whole folder.
ACCESS = STATE / "demo.json"
START_WITHIN, STOP_WITHIN, WRITTEN_WITHIN = 90.0, 60.0, 5.0
ASK_AFTER = 10.0  # seconds without the nodes until it is looked up why
PACKETS_PER_SECOND = 30
STAMP = struct.Struct("<BId")  # seat, number, time sent
PADDING = bytes(87)  # makes the payload 100 bytes, a usual size in games

PROFILE = ROOT / "examples" / "profiles" / "arena.json"

# Round trips that four players could have measured to the three locations: what a game sends along with a ticket.
PLAYERS: list[dict[str, Any]] = [
    {"name": "host", "ip": "192.0.2.10", "beacons": {"Frankfurt": 18, "Ashburn": 95, "Singapore": 170}},
    {"name": "anna", "ip": "192.0.2.20", "beacons": {"Frankfurt": 31, "Ashburn": 88, "Singapore": 190}},
    {"name": "ben", "ip": "192.0.2.30", "beacons": {"Frankfurt": 92, "Ashburn": 14, "Singapore": 230}},
    {"name": "cleo", "ip": "192.0.2.40", "beacons": {"Frankfurt": 44, "Ashburn": 110, "Singapore": 150}},
]

console = Console()


class DemoFailed(Exception):
    """What went wrong, in one sentence for the person at the terminal."""


# -- the game ---------------------------------------------------------------------------------------


@dataclass
class Player:
    """One player of the toy game: what it sent, and what the host's answers told it."""

    name: str
    seat: int
    dialect: str
    link: Any  # asyncio_udp.Connection or edgegap.EdgegapClient: they send and receive alike
    sent: int = 0
    received: int = 0
    round_trips: list[float] = field(default_factory=list)
    last_arrival: float = 0.0

    @property
    def shown_lost(self) -> str:
        """What has not come back; while packets fly, only what has been out for long counts."""
        missing = self.sent - self.received
        flying = time.monotonic() - self.last_arrival < 0.3
        return "0" if flying and missing < PACKETS_PER_SECOND // 3 else str(missing)

    async def send_stream(self, until: float) -> None:
        due = time.monotonic()
        while due < until:
            self.link.send(STAMP.pack(self.seat, self.sent, time.monotonic()) + PADDING)
            self.sent += 1
            due += 1 / PACKETS_PER_SECOND
            await asyncio.sleep(due - time.monotonic())

    async def receive_answers(self) -> None:
        while True:
            _source, payload = await self.link.receive()
            _, _, sent_at = STAMP.unpack_from(payload)
            self.received += 1
            self.last_arrival = time.monotonic()
            self.round_trips.append((self.last_arrival - sent_at) * 1000)


async def answer_everyone(host: edgegap.EdgegapHost) -> None:
    """The host's whole game: every packet goes back to the player it came from."""
    while True:
        source, payload = await host.receive()
        host.send(payload, source)


async def connect_players(session: dict[str, Any], names: list[str]) -> tuple[edgegap.EdgegapHost, list[Player]]:
    host = await open_edgegap(session, 0, edgegap.EdgegapHost, "server")
    players = [Player(names[1], 1, "edgegap", await open_edgegap(session, 1, edgegap.EdgegapClient, "client"))]
    for user in session["session_users"][2:]:
        link = await asyncio_udp.connect(
            session["relay"]["ip"],
            session["relay"]["ports"]["client"]["port"],
            connect_token=user["connect_token"],
            seat_key=user["seat_key"],
        )
        players.append(Player(names[user["seat"]], user["seat"], "native", link))
    return host, players


async def open_edgegap(session: dict[str, Any], seat: int, kind: type[Any], port: str) -> Any:
    link = kind(
        session["relay"]["ip"],
        session["relay"]["ports"][port]["port"],
        user_token=session["session_users"][seat]["authorization_token"],
        session_token=session["authorization_token"],
    )
    await link.open()
    await link.wait_valid()
    return link


async def play(session: dict[str, Any], names: list[str], api: httpx.Client, seconds: float) -> None:
    host, players = await connect_players(session, names)
    tasks = [asyncio.create_task(answer_everyone(host))]
    tasks += [asyncio.create_task(player.receive_answers()) for player in players]
    until = time.monotonic() + seconds
    senders = [asyncio.create_task(player.send_stream(until)) for player in players]
    with Live(console=console, refresh_per_second=4) as live:
        while time.monotonic() < until + 0.5:  # half a second for the last answers
            live.update(players_table(session, players))
            await asyncio.sleep(0.25)
        live.update(players_table(session, players))
    if not console.is_terminal:
        console.print()  # the live table ends without a line end there
    await asyncio.gather(*senders)
    lost = sum(player.sent - player.received for player in players)
    if lost:
        raise DemoFailed(f"{lost} of {sum(player.sent for player in players)} packets were lost")
    await show_revoke(session, api, players)
    for task in tasks:
        task.cancel()
    for link in (host, *(player.link for player in players)):
        link.close()


async def show_revoke(session: dict[str, Any], api: httpx.Client, players: list[Player]) -> None:
    """Revokes the last player while it plays on, and counts what still arrives."""
    player = players[-1]
    token = session["session_users"][player.seat]["authorization_token"]
    stream = asyncio.create_task(player.send_stream(time.monotonic() + 2.0))
    await asyncio.sleep(0.5)
    started = time.monotonic()
    body = {"session_id": session["session_id"], "authorization_token": token}
    answer = await asyncio.to_thread(api.post, "/v1/relays/sessions:revoke-user", json=body)
    answered = time.monotonic()
    answer.raise_for_status()
    with contextlib.suppress(Exception):  # the player's stream ends with its typed error: it was revoked
        await stream
    await asyncio.sleep(max(0.0, answered + 1.5 - time.monotonic()))
    late = max(0.0, player.last_arrival - answered)
    console.print(
        f"[bold]Revoked {player.name}[/] while it was playing: answered in {(answered - started) * 1000:.0f} ms; "
        f"the last packet it got came {late * 1000:.0f} ms after the answer."
        if late
        else f"[bold]Revoked {player.name}[/] while it was playing: answered in {(answered - started) * 1000:.0f} ms; "
        "nothing reached it after the answer."
    )
    if late > 0.5:
        raise DemoFailed(f"a packet reached a revoked player {late:.2f} s after the answer")


# -- what is shown ----------------------------------------------------------------------------------


def players_table(session: dict[str, Any], players: list[Player]) -> Table:
    relay = session["relay"]
    table = Table(title=f"Session {session['session_id']} over {session['location']}, relay {relay['host']}")
    for name in ("player", "dialect", "relay port"):
        table.add_column(name)
    for name in ("round trip ms", "sent", "answered", "lost"):
        table.add_column(name, justify="right")
    for player in players:
        recent = player.round_trips[-60:]
        trip = f"{statistics.median(recent):.2f}" if recent else "-"
        port = str(relay["ports"]["client"]["port"])
        table.add_row(
            player.name, player.dialect, port, trip, str(player.sent), str(player.received), player.shown_lost
        )
    return table


def show_placement(placement: dict[str, Any]) -> None:
    table = Table(title="Why this relay: every candidate and its cost")
    for name in ("node", "location", "cost ms", "made of", "chosen"):
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


# -- the processes ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Running:
    """A `manage.py up`: its process, and the port of its web server."""

    pid: int
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def running() -> Running | None:
    """What an earlier demo, or this one, left running."""
    try:
        with RUNNING.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        return read_running()
    return None


def read_running() -> Running:
    """Another demo locks the file, and then writes it: until the line is whole it is waited for."""
    deadline = time.monotonic() + WRITTEN_WITHIN
    while not (line := RUNNING.read_text()).endswith("\n"):
        if time.monotonic() > deadline:
            raise DemoFailed(f"{RUNNING} is locked by a process, and does not say by which")
        time.sleep(0.05)
    pid, port = line.split()
    return Running(int(pid), int(port))


def start_up(port: int, relay_port: int) -> Running:
    STATE.mkdir(mode=0o700, parents=True, exist_ok=True)
    LOG.parent.mkdir(exist_ok=True)
    argv = [sys.executable, "manage.py", "up", "--port", str(port), "--relay-port", str(relay_port)]
    with LOG.open("wb") as log, RUNNING.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock.truncate(0)  # not before it is ours
        process = subprocess.Popen(
            argv, cwd=ROOT, stdout=log, stderr=log, start_new_session=True, pass_fds=[lock.fileno()]
        )
        lock.write(f"{process.pid} {port}\n")
    return Running(process.pid, port)


def wait_until_up(url: str) -> None:
    deadline, ask_at = time.monotonic() + START_WITHIN, time.monotonic() + ASK_AFTER
    with console.status("Starting the manager, a Celery worker, beat, a matchmaker and three relay nodes") as status:
        while True:
            if running() is None:
                raise DemoFailed(f"the manager did not start. {last_line(LOG)}")
            health = monitor(url)
            ready = health.get("nodes_ready", 0)
            if ready >= 3:
                return
            status.update("Manager is up; waiting for its relay nodes" + f" ({ready} of 3 ready)" * bool(health))
            if health and time.monotonic() > ask_at:
                undrain_nodes()
                ask_at = float("inf")
            if time.monotonic() > deadline:
                raise DemoFailed(
                    f"the nodes were not ready within {START_WITHIN:.0f} s ({why_not_ready()}); the logs are in "
                    f"{LOG.parent}"
                )
            time.sleep(0.2)


def nodes() -> list[dict[str, Any]]:
    return list(json.loads(manage("relayctl", "nodes", "--json"))["nodes"])


def undrain_nodes() -> None:
    """A node that was drained stays so over `make stop`, and the demo needs all three."""
    for node in nodes():
        if node["draining"]:
            console.print(f"{node['name']} was drained: undraining it")
            manage("relayctl", "undrain", node["name"])


def why_not_ready() -> str:
    found = [f"{node['name']} is {node['state']}" for node in nodes() if node["state"] != "ready" or node["draining"]]
    return ", ".join(found) or "fewer than three have joined"


def packet_path() -> str:
    """As the nodes say in their logs."""
    told = {
        line for path in LOG.parent.glob("*.log") for line in re.findall(r"packet path: ([^\"\n]+)", path.read_text())
    }
    return "; ".join(sorted(told)) or "not told"


def monitor(url: str) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = httpx.get(f"{url}/monitor", timeout=2).json()
    except (httpx.HTTPError, ValueError):
        return {}
    return answer


def last_line(path: Path) -> str:
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].removeprefix("CommandError: ") if lines else f"See {path}"


def manage(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "manage.py", *arguments], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise DemoFailed(f"manage.py {arguments[0]}: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout.strip()


def stop() -> None:
    found = running()
    if found is None:
        console.print("Nothing is running.")
        return
    os.kill(found.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_WITHIN
    while running() is not None:
        if time.monotonic() > deadline:
            raise DemoFailed(f"process {found.pid} does not stop; its log is {LOG}")
        time.sleep(0.1)
    console.print("Stopped.")


# -- the whole --------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(prog="make demo ARGS=...", description=__doc__)
    parser.add_argument("--once", action="store_true", help="stop everything at the end")
    parser.add_argument("--stop", action="store_true", help="only stop what an earlier demo left running")
    parser.add_argument("--port", type=int, default=8000, help="of the web server (%(default)s)")
    parser.add_argument("--relay-port", type=int, default=31000, help="first UDP port (%(default)s)")
    parser.add_argument("--seconds", type=float, default=15, help="how long to play (%(default)s)")
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
        console.print("\nInterrupted." + " `make stop` ends what is still running." * bool(running()))
        sys.exit(130)


def demo(options: argparse.Namespace) -> None:
    found = running()
    if found:
        console.print(f"Already running at {found.url}; what is asked for here begins with `make stop`.")
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
    """Its keys and its password, if they still work."""
    try:
        access = json.loads(ACCESS.read_text())
        headers = {"Authorization": f"token {access['key']}"}
        works = httpx.get(f"{url}/v1/relays/sessions", headers=headers, timeout=10).status_code == 200
        return {name: str(access[name]) for name in ("key", "players_key", "username", "password")} if works else None
    except (OSError, ValueError, KeyError, TypeError):  # none, or not whole
        return None


def new_access() -> dict[str, str]:
    key = manage("api_key", "demo", "--create-tenant")
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
    """Ticket -> match -> session -> play."""
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
    asyncio.run(play(session, names, api, seconds))
    api.delete(f"/v1/relays/sessions/{session['session_id']}").raise_for_status()
    console.print("Session deleted. [bold green]0 packets lost[/] in both dialects.")


def open_ticket(game: httpx.Client, player: dict[str, Any]) -> str:
    body = {"profile": "arena", "player_ip": player["ip"], "attributes": {"beacons": player["beacons"]}}
    answer = game.post("/tickets", json=body)
    if answer.status_code != 201:
        raise DemoFailed(f"the ticket was refused: {answer.text}")
    return str(answer.json()["id"])


def wait_for_assignment(game: httpx.Client, ticket: str) -> dict[str, Any]:
    """Follows the ticket's events, which end with its last status."""
    shown: dict[str, Any] = {}
    with game.stream("GET", f"/tickets/{ticket}/events", headers={"Accept": "text/event-stream"}) as stream:
        for line in stream.iter_lines():
            field, _, value = line.partition(": ")
            if field == "data":
                shown = json.loads(value)
    if shown.get("status") != "HOST_ASSIGNED":
        raise DemoFailed(f"no match came of the ticket: {shown.get('status')} {shown.get('reason')}")
    return dict(shown["assignment"])


def show_what_to_do_next(url: str, access: dict[str, str]) -> None:
    python = Path(sys.executable)
    key, players_key = access["key"], access["players_key"]
    body = json.dumps({"users": [{"ip": "192.0.2.10"}, {"ip": "192.0.2.20"}]})
    console.print(
        f"""
Everything goes on running. Look around:

  Admin      {url}/admin/
             user {access["username"]}, password {access["password"]} (kept until `make clean`)
  API docs   {url}/docs
  Stop       make stop

A game, two to four of it in as many terminals (with a window: examples/arena/README.md):

CAUSEWAY_KEY={players_key} \\
  {python} -m examples.arena --headless --url {url}/matchmaker

A session, with a key of the tenant "demo":

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

"""What the manager bears: `make bench-api`.

Starts the whole stack on a PostgreSQL and a Redis of its own, fills it with live sessions over REST as fast as clients
in a closed loop can, and then measures with all of them live: creations at a fixed rate, each timed from the moment it
was due (so that a slow answer does not hide those behind it), then authorize-user, revoke-user, GET, list and DELETE,
the rounds of the periodic tasks, a node that is killed, and the list at a volume of rows written for that.

The peer is GET /monitor, a view with one small query: what the web server and Django cost by themselves.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import math
import os
import platform
import re
import signal
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import psycopg
from prometheus_client.parser import text_string_to_metric_families

from bench.chart import bars
from tests.flows.stack import Stack, running_stack
from tests.support.node_process import free_ports
from tests.support.servers import PRODUCTION, postgres, redis
from tests.support.waiting import wait_until

SESSIONS = "/v1/relays/sessions"
WORKER_PORT = "CAUSEWAY_WORKER_METRICS_PORT"
GOAL_MS = 50.0  # p95 of POST -> ready
Call = Callable[[aiohttp.ClientSession], Awaitable[None]]


@dataclass(frozen=True)
class Plan:
    sessions: int = 10_000
    fill: float = 240.0  # seconds at most in which they are made
    rate: float = 20.0  # creations a second
    duration: float = 30.0  # seconds at that rate
    clients: int = 8  # of the closed loop
    calls: int = 200  # of each of the other endpoints
    rows: int = 100_000  # of the list
    web: int = 1  # processes
    settle: float = 25.0  # seconds in which the periodic tasks are watched


@dataclass
class Row:
    what: str
    count: int
    p50: float
    p95: float
    p99: float
    most: float
    per_second: float


@dataclass
class Results:
    plan: Plan
    machine: str
    latencies: list[Row] = field(default_factory=list)
    tasks: dict[str, dict[str, float]] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)


def measure(plan: Plan, stack: Stack) -> Results:
    results = Results(plan, f"{os.cpu_count()} x {_processor()}, Linux {platform.release()}")
    lift_limits(stack)
    with _matchmaker_halted(stack):
        asyncio.run(_measure(plan, stack, results))
        _node_restart(stack, results)
        _list_at_volume(plan, stack, results)
    return results


async def _measure(plan: Plan, stack: Stack, results: Results) -> None:
    made: list[dict[str, Any]] = []

    async def create(client: aiohttp.ClientSession) -> None:
        made.append(await _asked(client.post(SESSIONS, json=_players(len(made)))))

    async def nothing(client: aiohttp.ClientSession) -> None:
        await _asked(client.get("/monitor"))

    headers = {"Authorization": f"token {stack.key}"}
    # Not httpx: what a call costs the caller would be a good part of its latency.
    async with aiohttp.ClientSession(stack.url, headers=headers, connector=aiohttp.TCPConnector(limit=256)) as client:
        say(f"creating {plan.sessions} sessions, {plan.clients} at a time")
        closed = await _closed_loop(client, create, plan)
        results.latencies.append(_row(f"create, {plan.clients} clients", *closed))
        results.figures["sessions on the nodes"] = _sessions_on_nodes(stack)

        say(f"{plan.rate:g} creations a second for {plan.duration:g} s")
        since = len(made)
        opened = await _open_loop(client, create, plan.rate, plan.duration)
        results.latencies.append(_row(f"create, {plan.rate:g}/s", *opened))

        mine = itertools.cycle(made[since:] or made)
        added: list[tuple[str, int]] = []

        async def authorize(client: aiohttp.ClientSession) -> None:
            session = next(mine)["session_id"]
            body = {"session_id": session, "user_ip": "198.51.100.7"}
            answer = await _asked(client.post(f"{SESSIONS}:authorize-user", json=body))
            added.append((session, answer["session_user"]["authorization_token"]))

        async def revoke(client: aiohttp.ClientSession) -> None:
            session, token = added.pop()
            body = {"session_id": session, "authorization_token": token}
            await _asked(client.post(f"{SESSIONS}:revoke-user", json=body))

        async def get(client: aiohttp.ClientSession) -> None:
            await _asked(client.get(f"{SESSIONS}/{next(mine)['session_id']}"))

        async def listed(client: aiohttp.ClientSession) -> None:
            await _asked(client.get(SESSIONS, params={"limit": 50}))

        async def delete(client: aiohttp.ClientSession) -> None:
            await _asked(client.delete(f"{SESSIONS}/{made.pop()['session_id']}"))

        calls = {"authorize-user": authorize, "revoke-user": revoke, "GET session": get, "list, 50 a page": listed}
        for what, call in (calls | {"DELETE": delete, "peer: GET /monitor": nothing}).items():
            count = min(plan.calls, len(made))
            say(f"{count} x {what} at {plan.rate:g}/s")
            results.latencies.append(_row(what, *await _open_loop(client, call, plan.rate, count / plan.rate)))
    say(f"watching the periodic tasks for {plan.settle:g} s")
    results.tasks = _tasks(stack, plan.settle)


async def _closed_loop(client: aiohttp.ClientSession, call: Call, plan: Plan) -> tuple[list[float], float]:
    """So many callers, each asking again when it was answered. Their latencies and the seconds it all took."""
    left = itertools.count()
    latencies: list[float] = []
    started = time.monotonic()

    async def caller() -> None:
        while next(left) < plan.sessions and time.monotonic() < started + plan.fill:
            asked = time.monotonic()
            await call(client)
            latencies.append(time.monotonic() - asked)

    await asyncio.gather(*(caller() for _ in range(plan.clients)))
    return latencies, time.monotonic() - started


async def _open_loop(
    client: aiohttp.ClientSession, call: Call, rate: float, duration: float
) -> tuple[list[float], float]:
    """Calls that are due at fixed moments, whatever became of those before. Latency counts from when it was due."""
    latencies: list[float] = []
    begin = time.monotonic()

    async def at(due: float) -> None:
        await asyncio.sleep(due - time.monotonic())
        await call(client)
        latencies.append(time.monotonic() - due)

    await asyncio.gather(*(at(begin + number / rate) for number in range(max(1, round(rate * duration)))))
    return latencies, time.monotonic() - begin


def _players(number: int) -> dict[str, Any]:
    """Four players near one of the three nodes, two with measurements, two only known by their place."""
    place, latitude, longitude = [
        ("frankfurt", 50.1, 8.7),
        ("virginia", 39.0, -77.5),
        ("singapore", 1.3, 103.8),
    ][number % 3]
    ip = f"203.0.{number // 250 % 250}.{number % 250 + 1}"
    measured = {"ip": ip, "latencies": {place: 20 + number % 20}}
    located = {"ip": ip, "latitude": latitude, "longitude": longitude}
    return {"users": [measured, located, measured, located], "idle_timeout": 3600, "metadata": {"match": number % 100}}


async def _asked(call: AbstractAsyncContextManager[aiohttp.ClientResponse]) -> Any:
    """What a call is answered, as JSON; None for no content."""
    async with call as answer:
        content = await answer.read()
        if answer.status not in (200, 204):
            raise AssertionError(f"{answer.method} {answer.url.path}: {answer.status} {content!r}")
        return json.loads(content) if content else None


def _checked(answer: httpx.Response) -> httpx.Response:
    if answer.status_code not in (200, 204):
        raise AssertionError(f"{answer.request.method} {answer.request.url.path}: {answer.status_code} {answer.text}")
    return answer


# Beside the calls


@dataclass
class Rounds:
    """Of a periodic task, as the worker's histogram has them."""

    count: float = 0.0
    seconds: float = 0.0
    within: dict[float, float] = field(default_factory=dict)  # {a bucket's bound, seconds: rounds that took no longer}


def _tasks(stack: Stack, seconds: float) -> dict[str, dict[str, float]]:
    """How long the rounds of each periodic task took while we watched."""
    before = _rounds(stack)
    time.sleep(seconds)
    found = {}
    for name, after in sorted(_rounds(stack).items()):
        was = before.get(name, Rounds())
        if count := after.count - was.count:
            below = min(bound for bound in after.within if after.within[bound] - was.within.get(bound, 0.0) >= count)
            mean = 1000 * (after.seconds - was.seconds) / count
            found[name] = {"rounds": count, "mean ms": mean, "all below ms": 1000 * below}
    return found


def _rounds(stack: Stack) -> dict[str, Rounds]:
    port = stack.environment[WORKER_PORT]
    rounds: dict[str, Rounds] = defaultdict(Rounds)
    for family in text_string_to_metric_families(httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text):
        for sample in family.samples if family.name == "causeway_task_seconds" else ():
            if sample.labels["outcome"] != "done":
                continue
            found = rounds[sample.labels["task"].removeprefix("relaymgr.")]
            if sample.name.endswith("_count"):
                found.count = sample.value
            elif sample.name.endswith("_sum"):
                found.seconds = sample.value
            else:
                found.within[float(sample.labels["le"])] = sample.value
    return rounds


def _node_restart(stack: Stack, results: Results) -> None:
    """SIGKILL to a node: how long until it holds its sessions again, the second before its restart included."""
    name = "frankfurt-1"
    before = _held(stack, name)
    started, pid = time.monotonic(), stack.pid(name)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: stack.pid(name) != pid, "the node's new process", 30)
    wait_until(lambda: _held(stack, name) >= before, "the node's sessions again", 60)
    results.figures["sessions of the killed node"] = before
    results.figures["s until it held them again"] = time.monotonic() - started


def _held(stack: Stack, name: str) -> int:
    """Sessions that the node itself says it holds."""
    with psycopg.connect(stack.environment["DATABASE_URL"]) as connection:
        url = connection.execute("SELECT control_url FROM nodes_relaynode WHERE name = %s", [name]).fetchone()
    assert url is not None
    try:
        metrics = httpx.get(f"{url[0]}/metrics", timeout=5).text
    except httpx.HTTPError:
        return 0
    return sum(int(float(value)) for value in re.findall(r"^\S*_sessions(?:\{.*\})? (\S+)$", metrics, re.MULTILINE))


def _sessions_on_nodes(stack: Stack) -> int:
    return sum(_held(stack, name) for name in ("frankfurt-1", "virginia-1", "singapore-1"))


def _list_at_volume(plan: Plan, stack: Stack, results: Results) -> None:
    """The list of a tenant with that many sessions: copies of real rows, as nodes play no part in it."""
    say(f"writing {plan.rows} sessions for the list")
    key = stack.manage("api_key", "volume", "--create-tenant").strip()
    lift_limits(stack)
    with psycopg.connect(stack.environment["DATABASE_URL"], autocommit=True) as connection:
        _copy_sessions(connection, plan.rows)
    last = math.ceil(plan.rows / 50)
    questions: dict[str, dict[str, Any]] = {
        "page 1": {},
        "page 1 of 200": {"limit": 200},
        "a page in the middle": {"page": last // 2 or 1},
        "the last page": {"page": last},
        "state=ready": {"state": "ready"},
        "location=virginia": {"location": "virginia"},
        "metadata.match=7": {"metadata.match": 7},
    }
    with httpx.Client(base_url=stack.url, headers={"Authorization": f"token {key}"}, timeout=30) as client:
        for what, params in questions.items():
            latencies, started = [], time.monotonic()
            for _ in range(min(plan.calls, 50)):
                asked = time.monotonic()
                answer = _checked(client.get(SESSIONS, params=params)).json()
                latencies.append(time.monotonic() - asked)
            assert answer["sessions"], what
            took = time.monotonic() - started
            results.latencies.append(_row(f"list of {plan.rows}: {what}", latencies, took))


def _copy_sessions(connection: psycopg.Connection[Any], rows: int) -> None:
    columns = _columns(connection, "relay_sessions_relaysession")
    given = {
        "id": "lpad(to_hex(n), 12, '0') || '-S'",
        "tenant_id": "(SELECT id FROM tenants_tenant WHERE slug = 'volume')",
        "created_at": "created_at - n * interval '1 ms'",
        "metadata": "jsonb_build_object('match', n % 1000)",
    }
    connection.execute(
        f"INSERT INTO relay_sessions_relaysession ({', '.join(columns)}) "
        f"SELECT {', '.join(given.get(name, name) for name in columns)} FROM generate_series(1, {rows}) n JOIN "
        "(SELECT *, row_number() OVER () r, count(*) OVER () c FROM (SELECT * FROM relay_sessions_relaysession "
        "WHERE state = 'ready' LIMIT 30) few) copied ON r = n % c + 1"
    )
    columns = [name for name in _columns(connection, "relay_sessions_seat") if name != "id"]
    given = {"session_id": "copies.id", "number": "n"}
    connection.execute(
        f"INSERT INTO relay_sessions_seat ({', '.join(columns)}) "
        f"SELECT {', '.join(given.get(name, f'copied.{name}') for name in columns)} FROM relay_sessions_relaysession "
        "copies, generate_series(0, 1) n, (SELECT * FROM relay_sessions_seat LIMIT 1) copied "
        "WHERE copies.tenant_id = (SELECT id FROM tenants_tenant WHERE slug = 'volume')"
    )
    connection.execute("VACUUM ANALYZE")


def _columns(connection: psycopg.Connection[Any], table: str) -> list[str]:
    asked = "SELECT column_name FROM information_schema.columns WHERE table_name = %s AND table_schema = 'public'"
    return [name for (name,) in connection.execute(asked, [table])]


def lift_limits(stack: Stack) -> None:
    with psycopg.connect(stack.environment["DATABASE_URL"]) as connection:
        limits = ("max_sessions", "requests_per_minute", "sessions_per_minute")
        connection.execute(f"UPDATE tenants_tenant SET {', '.join(f'{limit} = 1000000' for limit in limits)}")


@contextlib.contextmanager
def _matchmaker_halted(stack: Stack) -> Iterator[None]:
    """It has no tickets; what it asks of the database is not to be measured."""
    pid = stack.pid("matchmaker")
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


# What is shown


def say(line: str) -> None:
    print(line, flush=True)


def _row(what: str, seconds: list[float], took: float) -> Row:
    ms = sorted(1000 * each for each in seconds)
    at = [ms[min(len(ms) - 1, math.ceil(share * len(ms)) - 1)] for share in (0.50, 0.95, 0.99)]
    return Row(what, len(ms), *at, ms[-1], len(ms) / took)


def _processor() -> str:
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return found.group(1) if found else platform.machine()


def table(results: Results) -> None:
    say(f"\n{results.machine}; load average {os.getloadavg()[1]:.1f} over 5 minutes")
    say(f"{'ms':46}{'calls':>7}{'p50':>8}{'p95':>8}{'p99':>8}{'max':>8}{'a second':>10}")
    for row in results.latencies:
        percentiles = "".join(f"{ms:8.1f}" for ms in (row.p50, row.p95, row.p99, row.most))
        say(f"{row.what:46}{row.count:>7}{percentiles}{row.per_second:>10.1f}")
    say(f"\n{'a round of':46}{'rounds':>7}{'mean ms':>9}{'all below':>11}")
    for name, found in results.tasks.items():
        say(f"{name:46}{found['rounds']:>7.0f}{found['mean ms']:>9.1f}{found['all below ms']:>11.0f}")
    say("")
    for name, value in results.figures.items():
        say(f"{name}: {value:,.1f}")


def goal_is_met(results: Results) -> bool:
    (row,) = [row for row in results.latencies if row.what == f"create, {results.plan.rate:g}/s"]
    return row.p95 <= GOAL_MS


@contextlib.contextmanager
def stack_for(plan: Plan, folder: Path) -> Iterator[Stack]:
    """A stack on servers of its own, or on those that DATABASE_URL and BROKER_URL name."""
    with contextlib.ExitStack() as opened:
        database, broker = os.environ.get("DATABASE_URL", ""), os.environ.get("BROKER_URL", "")
        if not (database and broker):
            folder.chmod(0o711)  # PostgreSQL runs as another user when we are root
            database = opened.enter_context(postgres(folder)).url
            broker = opened.enter_context(redis(folder)).url
        state = folder / "state"
        state.mkdir()
        room = str(8 * max(plan.sessions, 1_000) + 10_000)
        environment = PRODUCTION | {
            "WEB_CONCURRENCY": str(plan.web),
            "CAUSEWAY_NODE_CAPACITY": room,
            WORKER_PORT: str(free_ports(1)),
        }
        yield opened.enter_context(running_stack(state, database, broker, **environment))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in asdict(Plan()).items():
        parser.add_argument(f"--{name}", type=type(default), default=default, help="(%(default)s)")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--picture", type=Path, help="write the 95th percentiles as SVG to this file")
    arguments = vars(parser.parse_args())
    as_json, picture = arguments.pop("json"), arguments.pop("picture")
    plan = Plan(**arguments)
    with tempfile.TemporaryDirectory(prefix="causeway-bench-") as name, stack_for(plan, Path(name)) as stack:
        results = measure(plan, stack)
    table(results)
    if as_json:
        as_json.write_text(json.dumps(asdict(results), indent=1) + "\n")
    if picture:
        picture.write_text(bars("95th percentile, ms", {row.what: row.p95 for row in results.latencies}))
    goal = f"POST -> ready, p95 <= {GOAL_MS:g} ms at {plan.rate:g}/s with {plan.sessions} live sessions"
    say(f"{goal}: {'met' if goal_is_met(results) else 'MISSED'}")


if __name__ == "__main__":
    main()

"""The cost of a search for a match in the web process: `make bench-find-match`.

It starts the whole stack with one web process on a PostgreSQL and a Redis of its own. Then all players call
`find_match` at the same time, from several processes and one address: beacons, ticket, events, and a connection to
the relay. The CPU time is that of the web process alone, user and system, with the sessions that the matchmaker
creates there.

The reference is GET /monitor, a view with one small query: the cost of the web server and Django alone.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import resource
import secrets
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import aiohttp
import httpx
from prometheus_client.parser import text_string_to_metric_families

from bench.api import lift_limits, say
from causeway_client.matchmaking import find_match
from tests.attacks.arena import family
from tests.flows.stack import Stack, running_stack
from tests.support.servers import PRODUCTION, postgres, redis
from tests.support.waiting import wait_until

GOAL_CPU_MS = 12.0  # of the web process, for each player
GOAL_P95 = 6.0  # seconds
METRICS_KEY = "CAUSEWAY_METRICS_KEY"
FOR_PEER = {"CAUSEWAY_UNAUTHENTICATED_REQUESTS_PER_MINUTE": "1000000"}
TICKS = os.sysconf("SC_CLK_TCK")
RAISED = {
    f"CAUSEWAY_{name}": "1000000"
    for name in (
        "MATCHMAKER_REQUESTS_PER_MINUTE",
        "MATCHMAKER_TICKETS_PER_MINUTE",
        "MATCHMAKER_MAX_TICKETS_PER_ADDRESS",
        "CONNECTIONS_PER_ADDRESS",
        "STREAMS_PER_ADDRESS",
    )
}
PROFILE = {
    "ticket_expiration_period": "300s",
    "session": {"dialects": ["native"]},
    "rules": {
        "initial": {
            "size": {"type": "player_count", "attributes": {"team_count": 2, "min_team_size": 2, "max_team_size": 2}},
            "elo": {"type": "number_difference", "attributes": {"max_difference": 200}},
        }
    },
}


@dataclass(frozen=True)
class Plan:
    players: int = 500
    processes: int = 4  # of the players
    within: float = 240.0  # seconds after which a player stops searching
    requests: int = 500  # of the reference
    default_limits: bool = False


@dataclass
class Results:
    plan: Plan
    seconds: list[float] = field(default_factory=list)  # of each player in a match, sorted
    failures: Counter[str] = field(default_factory=Counter)
    web_cpu_ms: float = 0.0  # for each player
    peer_cpu_ms: float = 0.0  # for each request
    requests: dict[str, float] = field(default_factory=dict)  # by method, route and status

    @property
    def refused(self) -> float:
        return sum(count for what, count in self.requests.items() if what.endswith((" 429", " 503")))

    def at(self, share: float) -> float:
        return self.seconds[min(len(self.seconds) - 1, int(share * len(self.seconds)))] if self.seconds else 0.0


def measure(plan: Plan, stack: Stack) -> Results:
    results = Results(plan)
    if not plan.default_limits:
        lift_limits(stack)
    key = _prepare(stack)
    web = stack.pid("web")
    _peer(stack, plan)  # modules that the first requests load do not count for a player
    before, cpu = _requests(stack), cpu_seconds(web)
    with ProcessPoolExecutor(plan.processes, multiprocessing.get_context("spawn")) as pool:
        starts_at = time.time() + 2.0 + plan.processes  # after the imports of all processes
        share = [len(range(number, plan.players, plan.processes)) for number in range(plan.processes)]
        calls = [pool.submit(_search_all, stack.url, key, count, starts_at, plan.within) for count in share]
        for call in calls:
            for outcome in call.result():
                if isinstance(outcome, str):
                    results.failures[outcome] += 1
                else:
                    results.seconds.append(outcome)
    results.web_cpu_ms = 1000 * (cpu_seconds(web) - cpu) / plan.players
    after = _requests(stack)
    results.requests = {what: count - before.get(what, 0.0) for what, count in after.items()}
    results.requests = {what: count for what, count in sorted(results.requests.items()) if count}
    results.seconds.sort()
    results.peer_cpu_ms = _peer(stack, plan)
    return results


def _prepare(stack: Stack) -> str:
    """The key of the players, once there is a profile and the matchmaker knows the relays."""
    body = {"config": PROFILE, "activate": True}
    answer = stack.api.post("/matchmaker/profiles/four/versions", json=body)
    assert answer.status_code == 201, answer.text
    key = stack.manage("api_key", "flows", "--scope", "matchmaker").strip()
    with httpx.Client(base_url=f"{stack.url}/matchmaker", headers={"Authorization": key}) as players:
        wait_until(lambda: players.get("/locations/beacons").json().get("count") == 3, "the beacons", 20)
    return key


def _search_all(url: str, key: str, players: int, starts_at: float, within: float) -> list[float | str]:
    """In a process of its own: the seconds until each player was connected to its relay, or its error."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)

    async def search() -> float | str:
        began = time.monotonic()
        try:
            found = await find_match(f"{url}/matchmaker", key, "four", {"elo": 1500}, search_timeout=within)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        took = time.monotonic() - began
        found.connection.close()
        return took

    async def search_all() -> list[float | str]:
        await asyncio.sleep(starts_at - time.time())
        return await asyncio.gather(*(search() for _ in range(players)))

    return asyncio.run(search_all())


def _peer(stack: Stack, plan: Plan) -> float:
    """Milliseconds of CPU time of the web process for a request for /monitor."""

    async def ask_all() -> None:
        # aiohttp: the clients share the machine, and httpx costs several times as much.
        async with aiohttp.ClientSession(stack.url, connector=aiohttp.TCPConnector(limit=8)) as client:

            async def ask() -> None:
                async with client.get("/monitor") as answer:
                    await answer.read()
                    assert answer.status == 200, answer.status

            await asyncio.gather(*(ask() for _ in range(plan.requests)))

    before = cpu_seconds(stack.pid("web"))
    asyncio.run(ask_all())
    return 1000 * (cpu_seconds(stack.pid("web")) - before) / plan.requests


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its descendants."""
    ticks = 0
    for each in family(pid):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS


def _requests(stack: Stack) -> dict[str, float]:
    """Requests that the web process has answered so far, by method, route and status."""
    headers = {"Authorization": f"Bearer {stack.environment[METRICS_KEY]}"}
    answer = httpx.get(f"{stack.url}/metrics", headers=headers, timeout=10)
    found = {}
    for sample in (each for every in text_string_to_metric_families(answer.text) for each in every.samples):
        if sample.name == "causeway_http_request_seconds_count":
            found[" ".join(sample.labels[name] for name in ("method", "route", "status"))] = sample.value
        elif sample.name == "causeway_http_refused_total":
            found[f"(no view) refused: {sample.labels['reason']} 503"] = sample.value
    return found


def table(results: Results) -> None:
    plan = results.plan
    limits = "default" if plan.default_limits else "raised"
    say(f"\n{plan.players} find_match at once, {plan.processes} processes of players, one web process, {limits} limits")
    for what, count in results.requests.items():
        say(f"  {count:6.0f} x {what}")
    for failure, count in results.failures.most_common(5):
        say(f"  FAILED {count} x {failure}")
    say(f"assigned and connected: {len(results.seconds)} of {plan.players}; refused calls: {results.refused:.0f}")
    say(f"seconds: p50 {results.at(0.5):.2f}, p95 {results.at(0.95):.2f}, max {results.at(1.0):.2f}")
    say(f"web CPU: {results.web_cpu_ms:.1f} ms a player; peer, GET /monitor: {results.peer_cpu_ms:.2f} ms a request")
    say(f"load average {os.getloadavg()[0]:.1f}")


def goal_is_met(results: Results) -> bool:
    is_whole = len(results.seconds) == results.plan.players
    return is_whole and results.web_cpu_ms <= GOAL_CPU_MS and results.at(0.95) <= GOAL_P95


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in asdict(Plan()).items():
        option = f"--{name.replace('_', '-')}"
        if isinstance(default, bool):
            parser.add_argument(option, action="store_true")
        else:
            parser.add_argument(option, type=type(default), default=default, help="(%(default)s)")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    arguments = vars(parser.parse_args())
    as_json = arguments.pop("json")
    plan = Plan(**arguments)
    with tempfile.TemporaryDirectory(prefix="causeway-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # PostgreSQL runs as another user when we are root
        state = folder / "state"
        state.mkdir()
        environment = PRODUCTION | FOR_PEER | {"WEB_CONCURRENCY": "1", METRICS_KEY: secrets.token_urlsafe(24)}
        if not plan.default_limits:
            environment |= RAISED
        with (
            postgres(folder) as database,
            redis(folder) as broker,
            running_stack(state, database.url, broker.url, **environment) as stack,
        ):
            results = measure(plan, stack)
    table(results)
    if as_json:
        as_json.write_text(json.dumps(asdict(results), indent=1) + "\n")
    goal = f"web CPU <= {GOAL_CPU_MS:g} ms a player, p95 <= {GOAL_P95:g} s, all of them in a match"
    say(f"{goal}: {'met' if goal_is_met(results) else 'MISSED'}")


if __name__ == "__main__":
    main()

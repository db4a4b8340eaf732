"""The stack under attack: PostgreSQL, Redis, manager, worker, matchmaker and three nodes, and the tenants on it."""

import contextlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from tests.flows.stack import Stack, running_stack
from tests.support.node_process import free_ports
from tests.support.servers import PRODUCTION, postgres, redis
from tests.support.waiting import wait_until

PROFILE = {
    "ticket_expiration_period": "60s",
    "rules": {
        "initial": {
            "size": {"type": "player_count", "attributes": {"team_count": 2, "min_team_size": 1, "max_team_size": 1}},
            "elo": {"type": "number_difference", "attributes": {"max_difference": 200}},
        }
    },
}
# One process for all of it: loading Django is what takes long.
_MAKE_TENANTS = """
import json
from relaymgr.tenants.models import Tenant
from relaymgr.tenants.services import api_key_create
made = []
for slug in ("bystander", "attacker", "neighbour"):
    tenant = Tenant.objects.create(
        name=slug, slug=slug, requests_per_minute=1_000_000, max_sessions=100_000, private_webhooks=True,
        webhook_url={webhook_url!r} if slug == "bystander" else "",
    )
    keys = [api_key_create(tenant=tenant, name=scope, scopes=[scope])[1] for scope in ("relay", "matchmaker")]
    made.append([slug, *keys])
print(json.dumps(made))
"""


@dataclass(frozen=True)
class Tenant:
    slug: str
    relay_key: str
    player_key: str


@dataclass(frozen=True)
class Target:
    """All that a program which plays against the stack needs; it travels as JSON."""

    url: str
    relay_key: str
    player_key: str
    control_urls: list[str]
    hanging_url: str = ""  # a web server that never answers
    join_key: str = ""

    def as_json(self) -> str:
        return json.dumps(asdict(self))


@dataclass
class Arena:
    stack: Stack
    tenants: dict[str, Tenant]
    control_urls: list[str]

    def target(self, slug: str, hanging_url: str = "", join_key: str = "") -> Target:
        tenant = self.tenants[slug]
        return Target(self.stack.url, tenant.relay_key, tenant.player_key, self.control_urls, hanging_url, join_key)

    def memory(self) -> dict[str, float]:
        """MB of resident memory for each process of ours, with its children."""
        names = ("web", "worker", "matchmaker", "frankfurt-1", "virginia-1", "singapore-1")
        return {name: sum(map(_resident, family(self.stack.pid(name)))) for name in names}


@dataclass(frozen=True)
class Servers:
    database: str
    broker: str


@contextlib.contextmanager
def running_servers() -> Iterator[Servers]:
    """A PostgreSQL and a Redis for any number of arenas, one after the other."""
    with tempfile.TemporaryDirectory(prefix="causeway-attack-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # PostgreSQL runs as another user when we are root
        with postgres(folder) as database, redis(folder) as broker:
            yield Servers(database.url, broker.url)


@contextlib.contextmanager
def running_arena(servers: Servers, bystander_webhook: str) -> Iterator[Arena]:
    """A new stack with the tenants `bystander`, `attacker` and `neighbour`, each with an active profile `duel`."""
    with contextlib.ExitStack() as opened:
        state = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="causeway-arena-")))
        environment = PRODUCTION | {"CAUSEWAY_WORKER_METRICS_PORT": str(free_ports(1))}
        stack = opened.enter_context(running_stack(state, servers.database, servers.broker, **environment))
        arena = Arena(stack, {}, [f"http://127.0.0.1:{stack.port + 1 + number}" for number in range(3)])
        made = stack.manage("shell", "-v", "0", "-c", _MAKE_TENANTS.format(webhook_url=bystander_webhook))
        for slug, relay_key, player_key in json.loads(made):
            arena.tenants[slug] = Tenant(slug, relay_key, player_key)
            _activate_profile(stack, relay_key)
        with httpx.Client(base_url=stack.url, headers={"Authorization": player_key}) as players:
            wait_until(lambda: players.get("/matchmaker/locations/beacons").json()["count"] == 3, "the beacons", 20)
        yield arena


def _activate_profile(stack: Stack, relay_key: str) -> None:
    answer = httpx.post(
        f"{stack.url}/matchmaker/profiles/duel/versions",
        json={"config": PROFILE, "activate": True},
        headers={"Authorization": f"token {relay_key}"},
    )
    assert answer.status_code == 201, answer.text


def family(pid: int) -> list[int]:
    """The process and all that descend from it."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
            found += [int(child) for child in children]
    return found


def _resident(pid: int) -> float:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    return 0.0

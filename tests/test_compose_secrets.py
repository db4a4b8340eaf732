"""Redis as docker-compose.yml runs it: with the ACL that deploy/new_secrets.sh makes, on a real server."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis
import yaml
from django.core.cache import caches
from django.test import override_settings
from kombu import Connection

from tests.support import servers

ROOT = Path(__file__).parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())

# Who may reach what: services by network. Nodes use the host's.
STORES = {"postgres", "redis"}
MANAGERS = {"migrate", "web", "worker", "beat", "matchmaker"}


class Server(NamedTuple):
    url: str
    port: int


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("compose")
    (folder / "deploy").mkdir()
    shutil.copy(ROOT / "deploy/new_secrets.sh", folder / "deploy")
    subprocess.run([folder / "deploy/new_secrets.sh"], check=True)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    program, *command = COMPOSE["services"]["redis"]["command"]
    argv = [shutil.which(program) or servers._redis_program(), *command, "--port", str(port), "--bind", "127.0.0.1"]
    argv[argv.index("/run/secrets/redis_acl")] = str(folder / "secrets/redis_acl")
    running = subprocess.Popen(argv, cwd=folder, stdout=subprocess.DEVNULL)
    try:
        url = (folder / "secrets/broker_url").read_text().strip().replace("@redis:6379/", f"@127.0.0.1:{port}/")
        deadline = time.monotonic() + 30
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert running.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        yield Server(url, port)
    finally:
        running.terminate()
        running.wait(10)


@pytest.mark.parametrize("credentials", ["", "default:guess@", "causeway:guess@"])
def test_nobody_comes_in_without_the_password(server: Server, credentials: str) -> None:
    with (
        redis.Redis.from_url(f"redis://{credentials}127.0.0.1:{server.port}/0") as client,
        pytest.raises((redis.AuthenticationError, redis.ResponseError)),
    ):
        client.get("anything")


def test_tasks_and_counters_work_with_it(server: Server) -> None:
    with Connection(server.url) as broker, broker.SimpleQueue("acl-test") as queue:
        queue.put({"task": 1})
        assert queue.get(timeout=10).payload == {"task": 1}
    cache = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": server.url}
    with override_settings(CACHES={"default": cache}):
        caches["default"].set("a", 1)
        assert caches["default"].incr("a") == 2
    with redis.Redis.from_url(server.url) as client:
        assert client.eval("return redis.call('incr', KEYS[1])", 1, "b") == 1
        client.publish("celery.pidbox", "x")
        assert client.info("server")["redis_version"]


@pytest.mark.parametrize("command", ["FLUSHALL", "CONFIG GET *", "ACL LIST", "SHUTDOWN NOSAVE", "KEYS *"])
def test_user_of_the_manager_has_no_administrative_commands(server: Server, command: str) -> None:
    with redis.Redis.from_url(server.url) as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(*command.split())


def test_health_check_may_ping_and_nothing_else(server: Server) -> None:
    with redis.Redis.from_url(f"redis://health:none@127.0.0.1:{server.port}/0") as client:
        assert client.ping()
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.get("a")


@pytest.mark.skipif(shutil.which("redis-cli") is None, reason="redis-cli is not installed")
def test_health_check_of_the_compose_file_tells_well_from_ill(server: Server) -> None:
    kind, check = COMPOSE["services"]["redis"]["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    here = check.replace("redis-cli", f"redis-cli -p {server.port}")
    assert subprocess.run(["sh", "-c", here], stdout=subprocess.DEVNULL).returncode == 0
    ill = here.replace("--user health", "--user nobody")
    assert subprocess.run(["sh", "-c", ill], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode != 0


def test_stores_are_on_a_network_of_the_managers_processes_alone() -> None:
    services = COMPOSE["services"]
    assert COMPOSE["networks"]["store"]["internal"] is True
    on_store = {name for name, service in services.items() if "store" in service.get("networks", [])}
    assert on_store == STORES | MANAGERS
    assert all(services[name]["networks"] == ["store"] and "ports" not in services[name] for name in STORES)


def test_nothing_but_the_proxy_is_published_beyond_this_machine() -> None:
    for name, service in COMPOSE["services"].items():
        for port in service.get("ports", []):
            assert name == "proxy" or port.startswith(("127.0.0.1:", "${CAUSEWAY_LISTEN:-127.0.0.1:")), (
                f"{name}: {port}"
            )

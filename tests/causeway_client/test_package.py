"""`pip install ./transports/python` alone, into an environment that has nothing else."""

import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

IMPORT_ALL = """
import importlib, json, pkgutil, sys, causeway_client
names = [m.name for m in pkgutil.walk_packages(causeway_client.__path__, "causeway_client.")]
failed = {}
for name in names:
    try:
        importlib.import_module(name)
    except ImportError as error:
        failed[name] = (error.name, str(error))
where = causeway_client.__path__[0]
print(json.dumps({"where": where, "names": names, "failed": failed, "loaded": sorted(sys.modules)}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """What a fresh interpreter finds, with the package and the standard library only."""
    work = tmp_path_factory.mktemp("package")
    source = work / "source"
    shutil.copytree(
        ROOT / "transports/python", source, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
    )
    target = work / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-deps", "--no-index"]
    subprocess.run([*install, "--target", target, source], check=True, capture_output=True, cwd=work)
    # -S: without site-packages; the standard library is all there is.
    script = f"import sys; sys.path.insert(0, {str(target)!r}); sys.path.append({sysconfig.get_path('platstdlib')!r})"
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script + IMPORT_ALL], check=True, capture_output=True, cwd=work
    )
    return target, json.loads(run.stdout)


def test_every_module_imports_with_the_standard_library_alone(installed):
    target, found = installed
    assert Path(found["where"]).is_relative_to(target)
    adapters = ("asyncio_udp", "blocking_udp", "edgegap", "sidecar")
    assert {f"causeway_client.{name}" for name in adapters} < set(found["names"])


def test_the_type_marker_is_installed(installed):
    target, _ = installed
    assert (target / "causeway_client/py.typed").exists()


def test_an_extra_that_is_missing_is_named(installed):
    _, found = installed
    assert "pip install 'causeway-client[rest]'" in found["failed"]["causeway_client.rest"][1]

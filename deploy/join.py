#!/usr/bin/env python3
"""Makes this machine a relay node: code and environment in /opt/causeway, settings in /etc/causeway, a systemd service.

    sudo python3 deploy/join.py https://relays.example.com

asks for the join key that `manage.py join_key LOCATION` printed. Run it again, for example after a `git pull`, to
update code and environment and to restart the node. Settings that are not given keep their values, and no key is
needed. The script uses only the standard library.
"""

import argparse
import getpass
import ipaddress
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
import venv
from pathlib import Path
from urllib.parse import urlsplit

SOURCE = Path(__file__).resolve().parent.parent
CODE = ("configuration", "nodeapi", "observability", "relaynode", "transports/python", "requirements.txt")
PREFIX = "CAUSEWAY_NODE_"
SERVICE = "causeway-node.service"
LINKED_WITHIN = 60.0


class CannotJoin(Exception):
    pass


def main() -> int:
    options = _arguments()
    try:
        return join(options)
    except (CannotJoin, OSError, subprocess.CalledProcessError) as error:
        print(f"join: {error}", file=sys.stderr)
        return 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Make this machine a relay node.")
    parser.add_argument("manager", nargs="?", default="", help="the manager's URL")
    parser.add_argument("key", nargs="?", default="", help="the join key; asked for when it is not given")
    parser.add_argument("--name", default="", help="the node's name; by default the host name")
    parser.add_argument("--public-ip", default="", help="the address that players use, if not the machine's own")
    parser.add_argument(
        "--public-ipv6", default="", help="the IPv6 address beside an IPv4 address; by default detected"
    )
    parser.add_argument("--control-host", default="", help="the address at which the manager reaches the node")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="another setting, without CAUSEWAY_NODE_"
    )
    parser.add_argument("--root", type=Path, default=Path("/"), help="install below this folder")
    parser.add_argument("--venv", type=Path, help="an existing environment to use unchanged")
    parser.add_argument("--foreground", action="store_true", help="run the node here, without a service")
    return parser.parse_args()


def join(options: argparse.Namespace) -> int:
    if sys.version_info < (3, 11):  # noqa: UP036 - the machine's own Python runs this file
        raise CannotJoin(f"a node needs Python 3.11 or newer; this is {sys.version.split()[0]}")
    home, etc = options.root / "opt/causeway", options.root / "etc/causeway"
    settings = _settings(options, _kept_settings(etc))
    _write_settings(etc, settings, _join_key(options, etc))
    _copy_code(home)
    python = (options.venv or _make_environment(home / ".venv")) / "bin/python"
    if options.foreground:
        return _run(python, home, etc, settings)
    _install_service(options.root)
    _wait_until_linked(settings)
    _write(etc / "join_key", "")  # the key may still be valid for other nodes
    print(f"The node is linked to {settings[PREFIX + 'MANAGER_URL']}. Its log: journalctl -u {SERVICE}")
    return 0


def _kept_settings(etc: Path) -> dict[str, str]:
    try:
        lines = shlex.split((etc / "node.env").read_text())
    except FileNotFoundError:
        return {}
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def _settings(options: argparse.Namespace, kept: dict[str, str]) -> dict[str, str]:
    manager = options.manager or kept.get(PREFIX + "MANAGER_URL", "")
    ours = _address_towards(manager)
    public = options.public_ip or kept.get(PREFIX + "PUBLIC_IP")
    if not public and not ipaddress.ip_address(ours).is_global:
        raise CannotJoin(f"this machine's own address, {ours}, is private: give the public one with --public-ip")
    given = {
        "MANAGER_URL": manager,
        "PUBLIC_IP": public or ours,
        "PUBLIC_IPV6": _public_ipv6(options, kept, public or ours),
        "CONTROL_HOST": options.control_host or kept.get(PREFIX + "CONTROL_HOST", ours),
        "NAME": options.name,
    }
    for item in options.set:
        name, equals, value = item.partition("=")
        if not equals or not name.isidentifier():
            raise CannotJoin("--set takes NAME=VALUE")
        given[name.upper().removeprefix(PREFIX)] = value
    if not all(value.isprintable() and "'" not in value for value in given.values()):
        raise CannotJoin("a setting contains a quote or an unprintable character")
    return kept | {PREFIX + name: value for name, value in given.items() if value}


def _public_ipv6(options: argparse.Namespace, kept: dict[str, str], public_ip: str) -> str:
    """The given address, the kept one, or the source address of this machine's IPv6 route. Empty if there is none, or
    if public_ip is an IPv6 address."""
    if ":" in public_ip:
        return ""
    if given := options.public_ipv6 or kept.get(PREFIX + "PUBLIC_IPV6", ""):
        return str(given)
    ours = _own_address(socket.AF_INET6, "2001:4860:4860::8888")
    return ours if ours and ipaddress.ip_address(ours).is_global else ""


def _own_address(family: socket.AddressFamily, towards: str) -> str:
    """The source address of the route. Sends nothing: connecting a UDP socket needs no packet."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((towards, 9))
            return str(probe.getsockname()[0])
    except OSError:
        return ""


def _address_towards(manager: str) -> str:
    """The source address of the route to the manager. Sends nothing: connecting a UDP socket needs no packet."""
    host = urlsplit(manager).hostname
    if not host:
        raise CannotJoin("the manager's URL must be http:// or https://")
    family, _, _, _, address = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect(address)
        return str(probe.getsockname()[0])


def _join_key(options: argparse.Namespace, etc: Path) -> str:
    if options.key:
        return str(options.key)
    kept = etc / "join_key"
    if kept.exists():  # the node reads it only until it has keys of its own
        return kept.read_text()
    return getpass.getpass("Join key: ") if sys.stdin.isatty() else sys.stdin.readline().strip()


def _write_settings(etc: Path, settings: dict[str, str], join_key: str) -> None:
    etc.mkdir(parents=True, exist_ok=True)
    lines = [f"{name}='{value}'\n" for name, value in settings.items()]
    _write(etc / "node.env", "".join(lines))
    _write(etc / "join_key", join_key)


def _write(path: Path, text: str) -> None:
    """Only the owner can read the file, even while it is being written."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text)


def _copy_code(home: Path) -> None:
    home.mkdir(parents=True, exist_ok=True)
    ignored = shutil.ignore_patterns("__pycache__", "build", "*.egg-info")
    for name in CODE:
        source, target = SOURCE / name, home / name
        if source.is_file():
            shutil.copy2(source, target)
        else:
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target, ignore=ignored)


def _make_environment(folder: Path) -> Path:
    print(f"Installing the node's dependencies into {folder}")
    if not (folder / "bin/python").exists():
        venv.create(folder, with_pip=True)
    requirements = folder.parent / "requirements.txt"
    pip = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--require-hashes", "-r", str(requirements)], check=True)
    client = folder.parent / "transports/python"  # a folder has no hash, so it needs a separate call
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", str(client)], check=True)
    return folder


def _run(python: Path, home: Path, etc: Path, settings: dict[str, str]) -> int:
    os.chdir(home)
    more = {
        "CAUSEWAY_NODE_JOIN_KEY_FILE": str(etc / "join_key"),
        "CAUSEWAY_NODE_STATE_DIR": str(home.parents[1] / "var/lib/causeway-node"),
    }
    os.execve(python, [str(python), "-m", "relaynode"], os.environ | more | settings)  # noqa: S606


def _install_service(root: Path) -> None:
    units = root / "etc/systemd/system"
    units.mkdir(parents=True, exist_ok=True)
    shutil.copy2(SOURCE / "deploy/systemd" / SERVICE, units / SERVICE)
    if root != Path("/"):
        raise CannotJoin(f"the files are installed below {root}, but a service can only be started from /")
    for command in (["daemon-reload"], ["enable", SERVICE], ["restart", SERVICE]):
        subprocess.run(["systemctl", *command], check=True)  # noqa: S607 - root's own PATH


def _wait_until_linked(settings: dict[str, str]) -> None:
    host = settings["CAUSEWAY_NODE_CONTROL_HOST"]
    port = settings.get("CAUSEWAY_NODE_CONTROL_PORT", "8900")
    url = f"http://[{host}]:{port}/healthz" if ":" in host else f"http://{host}:{port}/healthz"
    deadline = time.monotonic() + LINKED_WITHIN
    while time.monotonic() < deadline:
        if _link(url) == "connected":
            return
        time.sleep(0.5)
    raise CannotJoin(f"the node is not linked to the manager after {LINKED_WITHIN:.0f} s: journalctl -u {SERVICE}")


def _link(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - our own # nosec B310
            return str(json.load(answer).get("manager", ""))
    except (OSError, ValueError):
        return ""


if __name__ == "__main__":
    sys.exit(main())

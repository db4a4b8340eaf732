"""`manage.py up` says at once what is in its way. Running, it is tested in tests/flows."""

import socket

import pytest
from django.core.management import CommandError, call_command

from tests.support.node_process import free_ports


@pytest.mark.parametrize(
    ("arguments", "port", "option"),
    [
        (["--port", "0"], "0 (web)", "--port"),
        (["--port", "65534"], "65536 (node control)", "--port"),
        (["--port", "99999"], "99999 (web)", "--port"),
        (["--relay-port", "65533"], "65536 (relay)", "--relay-port"),
    ],
)
def test_port_that_cannot_be_is_refused_by_name(arguments: list[str], port: str, option: str) -> None:
    free = [] if "--port" in arguments else ["--port", str(free_ports(8))]
    with pytest.raises(CommandError) as refused:
        call_command("up", *free, *arguments)
    assert str(refused.value) == f"Port {port} cannot be used: ports go from 1 to 65535. Choose another with {option}."


def test_address_that_is_not_ours_is_refused() -> None:
    with pytest.raises(CommandError, match=r"192\.0\.2\.1"):
        call_command("up", "--host", "192.0.2.1")


def test_taken_port_is_refused_by_name() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CommandError, match=rf"Port {port} \(web\) cannot be used: Address already in use"):
            call_command("up", "--port", str(port))


@pytest.mark.skipif(not socket.has_ipv6, reason="wants IPv6 on loopback")
def test_ipv6_address_is_looked_at_in_its_own_family() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CommandError, match=rf"Port {port} \(web\) cannot be used: Address already in use"):
            call_command("up", "--host", "::1", "--port", str(port))


def _free_port() -> int:
    """One with three free after it, most likely: the nodes' control ports."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])

"""Everything over IPv6 alone: `manage.py up --host ::1`, a session of two IPv6 players, their packets."""

import socket
from pathlib import Path

import pytest

from causeway_client import asyncio_udp
from causeway_client.rest import RelayManager, connect_arguments
from tests.flows.stack import Stack, running_stack
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.flow,
    pytest.mark.skipif(not socket.has_ipv6, reason="wants IPv6 on loopback"),
]


async def test_everything_runs_and_plays_over_ipv6(tmp_path: Path) -> None:
    with running_stack(tmp_path, host="::1") as stack:
        wait_until(lambda: _is_matchmaker_well(stack), "the matchmaker reaches the manager")
        async with RelayManager(stack.url, stack.key) as manager:
            session = await manager.create_session([{"ip": "2001:db8::1"}, {"ip": "2001:db8::2"}])
        assert session["relay"]["ip"] == "::1"
        host = await asyncio_udp.connect(**connect_arguments(session, seat=0))
        player = await asyncio_udp.connect(**connect_arguments(session, seat=1))
        async with host, player:
            assert player.get_extra_info("peername")[0] == "::1"
            player.send(b"over IPv6")
            assert await host.receive() == (1, b"over IPv6")


def _is_matchmaker_well(stack: Stack) -> bool:
    return bool(stack.api.get("/matchmaker/monitor").json()["status"] == "HEALTHY")

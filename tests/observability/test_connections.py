"""Connections of callers that showed no key."""

import contextlib
import http.client
import socket

import pytest

from observability import exposition
from observability.connections import Unauthenticated, network_of
from tests.support.node_process import free_ports
from tests.support.waiting import wait_until


def test_the_oldest_of_an_address_makes_room():
    held = Unauthenticated[int](per_address=2, in_all=100)
    assert [held.add(number, "192.0.2.1") for number in range(4)] == [None, None, 0, 1]
    assert held.add(9, "192.0.2.2") is None


def test_the_oldest_of_all_makes_room():
    held = Unauthenticated[int](per_address=10, in_all=3)
    closed = [held.add(number, f"192.0.2.{number}") for number in range(5)]
    assert closed == [None, None, None, 0, 1]
    assert len(held) == 3


def test_who_showed_a_key_or_left_does_not_count():
    held = Unauthenticated[int](per_address=1, in_all=100)
    held.add(1, "192.0.2.1")
    held.remove(1)
    held.remove(1)
    assert held.add(2, "192.0.2.1") is None
    assert held.older_than(60) == []
    assert held.older_than(-1) == [2]


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1:2:3:4", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_addresses_are_counted_by_network(address, network):
    assert network_of(address) == network


def test_silent_readers_of_metrics_neither_stay_nor_keep_others_out(monkeypatch):
    monkeypatch.setattr(exposition, "CONNECTION_SECONDS", 1)
    port = free_ports(1)
    exposition.serve(port, host="127.0.0.1", key="")
    held = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(60)]
    try:
        reader = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        reader.request("GET", "/metrics")
        assert reader.getresponse().status == 200
        assert held[0].recv(1) == b"", "the oldest made room"
        last = held[-1]

        def is_closed() -> bool:
            with contextlib.suppress(BlockingIOError, TimeoutError):
                try:
                    last.send(b"G")  # a byte at a time does not keep it open
                    last.settimeout(0.05)
                    return last.recv(1) == b""
                except ConnectionError:
                    return True
            return False

        wait_until(is_closed)
    finally:
        for connection in held:
            connection.close()

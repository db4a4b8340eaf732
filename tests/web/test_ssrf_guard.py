import asyncio
import contextlib
import itertools
import socket
import threading
from collections.abc import Callable, Iterator, Sequence

import httpcore
import pytest

from web.ssrf_guard import (
    AddressRefused,
    GuardedNetwork,
    Lookups,
    LookupsBusy,
    is_private_url,
    is_public,
    is_webhook_url,
)


class Listener:
    """A loopback port, IPv4 and IPv6. The kernel completes TCP connects by itself; `connects` counts them."""

    def __init__(self) -> None:
        self._servers = [socket.create_server(("127.0.0.1", 0))]
        self.port = self._servers[0].getsockname()[1]
        if socket.has_ipv6:
            self._servers.append(socket.create_server(("::1", self.port), family=socket.AF_INET6))
        for server in self._servers:
            server.setblocking(False)

    def connects(self) -> int:
        return sum(self._waiting(server) for server in self._servers)

    def _waiting(self, server: socket.socket) -> int:
        for count in itertools.count():
            try:
                server.accept()[0].close()
            except BlockingIOError:
                return count
        raise AssertionError

    def close(self) -> None:
        for server in self._servers:
            server.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.close()


INWARD = [
    "localhost",
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f.1",
    "0177.0.0.1",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[64:ff9b::127.0.0.1]",  # NAT64
    "[2002:7f00:1::]",  # 6to4
    "[::127.0.0.1]",  # IPv4-compatible
    "169.254.169.254",  # metadata
    "192.0.0.192",  # the same at Oracle
    "168.63.129.16",  # and at Azure
    "100.64.0.1",  # carrier-grade NAT
    "10.0.0.1",
    "224.0.0.1",
    "0.0.0.0",
]


@pytest.mark.parametrize("host", INWARD)
async def test_inward_host_is_refused_without_a_connect(host: str, listener: Listener) -> None:
    url = f"http://{host}:{listener.port}/"
    assert is_webhook_url(url)
    async with httpcore.AsyncConnectionPool(network_backend=GuardedNetwork(owner=1)) as pool:
        with pytest.raises(AddressRefused):
            await asyncio.wait_for(pool.request("POST", url), 5)
    assert listener.connects() == 0


async def test_listener_would_have_counted(listener: Listener) -> None:
    async with httpcore.AsyncConnectionPool() as pool:
        with pytest.raises(httpcore.ReadTimeout):
            url = f"http://127.0.0.1:{listener.port}/"
            await pool.request("POST", url, extensions={"timeout": {"connect": 5, "read": 0.1}})
    assert listener.connects() == 1


def resolve(monkeypatch: pytest.MonkeyPatch, answers: Callable[[str], Sequence[str]]) -> None:
    def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        return [(0, 0, 0, "", (address, port)) for address in answers(host)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def note_connects(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    connected: list[str] = []

    async def connect_tcp(self: object, host: str, *_: object) -> None:
        connected.append(host)
        raise httpcore.ConnectError

    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", connect_tcp)
    return connected


async def test_one_inward_address_among_public_ones_refuses_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"mixed.test": ["93.184.216.34", "10.0.0.1"], "public.test": ["93.184.216.34", "2606:2800:220:1::1"]}
    resolve(monkeypatch, answers.__getitem__)
    connected = note_connects(monkeypatch)
    network = GuardedNetwork(owner=1)
    with pytest.raises(AddressRefused):
        await network.connect_tcp("mixed.test", 443)
    assert connected == []
    with pytest.raises(httpcore.ConnectError):
        await network.connect_tcp("public.test", 443)
    assert connected == answers["public.test"]


async def test_connects_to_the_address_that_was_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that answers differently the second time gains nothing: there is no second time."""
    asked: list[str] = []

    def answer(host: str) -> list[str]:
        asked.append(host)
        return ["93.184.216.34" if len(asked) == 1 else "127.0.0.1"]

    resolve(monkeypatch, answer)
    connected = note_connects(monkeypatch)
    async with httpcore.AsyncConnectionPool(network_backend=GuardedNetwork(owner=1)) as pool:
        with pytest.raises(httpcore.ConnectError):
            await pool.request("POST", "http://rebinding.test/")
    assert (asked, connected) == (["rebinding.test"], ["93.184.216.34"])


async def test_unknown_name_is_refused_like_an_inward_one() -> None:
    with pytest.raises(AddressRefused):
        await GuardedNetwork(owner=1).connect_tcp("no-such-host.invalid", 443)


async def test_families_take_turns_and_a_dead_address_does_not_use_up_the_deadline(
    monkeypatch: pytest.MonkeyPatch, listener: Listener
) -> None:
    """The first address accepts nothing: its backlog is full. The second one works."""
    with socket.create_server(("127.0.0.2", 0), backlog=0) as full, contextlib.ExitStack() as held:
        port = full.getsockname()[1]
        for _ in range(4):
            client = held.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(("127.0.0.2", port))
        with socket.create_server(("127.0.0.1", port)):
            resolve(monkeypatch, lambda host: ["127.0.0.2", "127.0.0.1"])
            stream = await asyncio.wait_for(
                GuardedNetwork(owner=1, allow_private=True).connect_tcp("two.test", port), 8
            )
            assert stream.get_extra_info("server_addr")[0] == "127.0.0.1"
            await stream.aclose()


async def test_names_that_hang_leave_threads_to_other_owners(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def answer(host: str) -> list[str]:
        if host == "hangs.test":
            released.wait(30)
        return ["93.184.216.34"]

    resolve(monkeypatch, answer)
    lookups = Lookups(threads=8)
    hanging = [asyncio.ensure_future(lookups.addresses(1 + number % 3, "hangs.test", 443)) for number in range(30)]
    try:
        assert await asyncio.wait_for(lookups.addresses(9, "well.test", 443), 5) == ["93.184.216.34"]
        for lookup in hanging:  # their callers have given up: the threads are still busy
            lookup.cancel()
        refused = await asyncio.gather(*hanging, return_exceptions=True)
        assert any(isinstance(outcome, LookupsBusy) for outcome in refused)
        with pytest.raises(LookupsBusy):
            await lookups.addresses(1, "well.test", 443)
        assert await asyncio.wait_for(lookups.addresses(9, "well.test", 443), 5) == ["93.184.216.34"]
    finally:
        released.set()


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"],
)
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *["172.16.0.1", "192.168.1.1", "192.0.2.1", "198.18.0.1", "240.0.0.1", "255.255.255.255"],
        *["fe80::1", "fe80::1%eth0", "fc00::1", "fec0::1", "ff02::1", "2001:db8::1", "::", "64:ff9b:1::a00:1"],
        *["2002:a00:1::", "64:ff9b::10.0.0.1", "2001::1", "100::1"],
    ],
)
def test_other_addresses_are_not(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "https://my-webhook.com/dump",
        "http://backend:8080/hook?a=b",
        "http://[2606:4700::1111]:80/",
        "HTTPS://EXAMPLE.COM",
    ],
)
def test_webhook_urls(url: str) -> None:
    assert is_webhook_url(url)


@pytest.mark.parametrize(
    "url",
    [
        *[
            "my-webhook.com/dump",
            "ftp://example.com/",
            "file:///etc/passwd",
            "gopher://example.com",
            "javascript:alert(1)",
        ],
        *["http://", "http://user:password@example.com/", "http://example.com:99999/", "http://example.com:0/"],
        *[
            "http://[::1",
            "http://exa mple.com/",
            "http://example.com/\r\nX: y",
            "http://ex\\ample.com/",
            "http://b\u00fccher.de/",
        ],
    ],
)
def test_other_texts_are_no_webhook_urls(url: str) -> None:
    assert not is_webhook_url(url)


@pytest.mark.parametrize(
    "host",
    ["localhost", "a.localhost", "localhost.", "127.0.0.1", "127.1", "2130706433", "0x7f.1", "10.1.2.3", "[::1]"]
    + ["169.254.169.254", "[fd00::1]", "[::ffff:10.0.0.1]", "0.0.0.0", "192.168.1.1:8080"],
)
def test_a_host_that_can_only_be_private_is_known_without_a_lookup(host: str) -> None:
    assert is_private_url(f"http://{host}/hook")


@pytest.mark.parametrize("host", ["studio.example", "1.1.1.1", "[2606:4700::1111]", "localhost.example", "10.example"])
def test_other_hosts_are_judged_when_they_are_called(host: str) -> None:
    assert not is_private_url(f"https://{host}/hook")

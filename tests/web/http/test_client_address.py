"""EDGEGAP.md R60: behind our proxies /v1/ip must return the caller's address, and nobody may choose his own."""

import ipaddress
from typing import Any

import pytest
from django.test import RequestFactory
from rest_framework.test import APIClient

from web.http.client_address import client_address, client_network


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "expected"),
    [
        ("", "198.51.100.9", "", "198.51.100.9"),
        ("", "198.51.100.9", "1.2.3.4", "198.51.100.9"),  # nobody is trusted: what the client wrote is nothing
        ("10.0.0.0/8", "10.0.0.1", "198.51.100.9", "198.51.100.9"),
        ("10.0.0.0/8", "10.0.0.1", "1.2.3.4, 198.51.100.9", "198.51.100.9"),  # the left one is the client's invention
        ("10.0.0.0/8", "10.0.0.1", "198.51.100.9, 10.0.0.2", "198.51.100.9"),  # two proxies of ours
        ("10.0.0.0/8", "198.51.100.9", "1.2.3.4", "198.51.100.9"),  # came past the proxy
        ("10.0.0.0/8", "10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.0/8", "10.0.0.1", "rubbish", "10.0.0.1"),
        ("10.0.0.0/8", "10.0.0.1", "rubbish, 198.51.100.9", "198.51.100.9"),
        ("10.0.0.0/8", "10.0.0.1", "10.0.0.3", "10.0.0.3"),
        ("10.0.0.0/8", "::ffff:10.0.0.1", "::ffff:198.51.100.9", "198.51.100.9"),
        ("fd00::/8", "fd00::1", "2001:db8::7", "2001:db8::7"),
        ("10.0.0.0/8", "", "", ""),
        ("10.0.0.0/8", "10.0.0.1", "198.51.100.7:51234", "198.51.100.7"),
        ("10.0.0.0/8", "10.0.0.1", "[2001:db8::7]:443", "2001:db8::7"),
        ("10.0.0.0/8", "10.0.0.1", "[2001:db8::7]", "2001:db8::7"),
        ("10.0.0.0/8", "10.0.0.1", '"[2001:db8::7]:443"', "2001:db8::7"),
        ("10.0.0.0/8", "10.0.0.1", "[::ffff:198.51.100.7]:1", "198.51.100.7"),
        ("10.0.0.0/8", "10.0.0.1", "1.2.3.4:5, 198.51.100.7:51234, 10.0.0.2:80", "198.51.100.7"),
        ("10.0.0.0/8", "10.0.0.1", "198.51.100.7, , ", "198.51.100.7"),
        ("10.0.0.0/8", "10.0.0.1", "[2001:db8::7", "10.0.0.1"),
        ("10.0.0.0/8", "10.0.0.1", "198.51.100.7:port", "10.0.0.1"),
        ("10.0.0.0/8", "10.0.0.1", "198.51.100.7:123456", "10.0.0.1"),
        ("10.0.0.0/8", "10.0.0.1", "1.2.3.4, unknown", "10.0.0.1"),  # no way past what our proxy could not name
    ],
)
def test_R60_nearest_address_that_is_no_proxy_of_ours(
    settings: Any, trusted: str, peer: str, forwarded: str, expected: str
) -> None:
    settings.TRUSTED_PROXIES = [ipaddress.ip_network(trusted)] if trusted else []
    headers = {"HTTP_X_FORWARDED_FOR": forwarded} if forwarded else {}
    assert client_address(RequestFactory().get("/", REMOTE_ADDR=peer, **headers)) == expected


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("198.51.100.9", "", "198.51.100.9"),
        ("2001:db8:1:2:3:4:5:6", "", "2001:db8:1:2::/64"),
        ("::ffff:198.51.100.9", "", "198.51.100.9"),
        ("10.0.0.1", "[2001:db8::7]:443", "2001:db8::/64"),
        ("", "", "unknown"),
    ],
)
def test_limits_count_an_address_or_a_v6_network(settings: Any, peer: str, forwarded: str, expected: str) -> None:
    settings.TRUSTED_PROXIES = [ipaddress.ip_network("10.0.0.0/8")]
    headers = {"HTTP_X_FORWARDED_FOR": forwarded} if forwarded else {}
    assert client_network(RequestFactory().get("/", REMOTE_ADDR=peer, **headers)) == expected


def test_unreadable_clients_of_one_proxy_are_not_one_client(settings: Any) -> None:
    settings.TRUSTED_PROXIES = [ipaddress.ip_network("10.0.0.0/8")]

    def network(forwarded: str) -> str:
        return client_network(RequestFactory().get("/", REMOTE_ADDR="10.0.0.1", HTTP_X_FORWARDED_FOR=forwarded))

    assert len({network("_a"), network("_b"), network("10.0.0.1")}) == 3
    assert network("_a") == network("1.2.3.4, _a"), "what the client itself wrote makes no other client of it"


def test_R60_ip_answers_the_callers_address(api: APIClient, settings: Any) -> None:
    settings.TRUSTED_PROXIES = [ipaddress.ip_network("127.0.0.0/8")]
    assert api.get("/v1/ip", HTTP_X_FORWARDED_FOR="174.91.204.75").json() == {"public_ip": "174.91.204.75"}
    assert api.get("/v1/ip").json() == {"public_ip": "127.0.0.1"}

from typing import Any

import pytest

from web.http.origins import is_allowed, origins_problem


@pytest.mark.parametrize(
    ("entry", "origin", "expected"),
    [
        ("https://a.example.com", "https://a.example.com", True),
        ("https://A.example.com", "https://a.example.com", True),
        ("https://a.example.com", "http://a.example.com", False),
        ("https://a.example.com", "https://a.example.com:8443", False),
        ("https://*.example.com", "https://a.b.example.com", True),
        ("https://*.example.com", "https://example.com", False),
        ("https://*.example.com", "https://evil.com/.example.com", False),
        ("https://*.example.com", "https://evilexample.com", False),
        ("https://*.example.com", "http://a.example.com", False),
        ("https://*.example.com:8443", "https://a.example.com:8443", True),
        ("*", "null", True),
        ("https://a.example.com", "null", False),
    ],
)
def test_what_an_entry_admits(entry: str, origin: str, expected: bool) -> None:
    assert not origins_problem([entry])
    assert is_allowed(origin, [entry]) is expected


@pytest.mark.parametrize(
    "entry", ["example.com", "https://a/b", "https://a.*.com", "ftp://a", "", 5, "https://" + "a" * 200]
)
def test_what_is_no_origin(entry: Any) -> None:
    assert origins_problem([entry])

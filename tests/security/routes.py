"""Every route below the root that is not the admin's, read from the resolver: a new one cannot be forgotten."""

import re
from collections.abc import Iterator

from django.urls import URLPattern, URLResolver, get_resolver

# What stands for a parameter where the thing need not exist.
SAMPLES = {
    "session_id": "123456789abc-S",
    "ticket_id": "0" * 20,
    "member_id": "0" * 20,
    "match_id": "0" * 20,
    "group_id": "00000000-0000-4000-8000-000000000000",
    "backfill_id": "00000000-0000-4000-8000-000000000000",
    "name": "nothing",
    "number": "1",
    "ip": "198.51.100.1",
}
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def templates() -> list[str]:
    """Such as /v1/relays/sessions/{session_id}."""
    return sorted(set(_below("/", get_resolver().url_patterns)))


def _below(prefix: str, patterns: list[URLPattern | URLResolver]) -> Iterator[str]:
    for pattern in patterns:
        path = prefix + re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", str(pattern.pattern))
        if path.startswith("/admin/"):
            continue
        if isinstance(pattern, URLResolver):
            yield from _below(path, pattern.url_patterns)
        else:
            yield path


def fill(template: str, **values: str) -> str:
    return template.format(**(SAMPLES | values))

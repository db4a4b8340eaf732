"""Origins of browser pages that may read responses (CORS). Pure.

An entry is an origin (https://play.example.com), one with `*` for the first labels of its host (https://*.example.com),
or `*` alone for every origin. Keys are sent in a header and never automatically by the browser, so an origin alone
gives access to nothing.
"""

import re
from collections.abc import Sequence

MAX_ORIGINS = 50
MAX_LENGTH = 200
_ORIGIN = re.compile(r"https?://(\*\.)?([a-z0-9-]+(\.[a-z0-9-]+)*|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", re.IGNORECASE)


def origins_problem(origins: object) -> str:
    """Why this is not a valid list of origins; empty when it is."""
    if not isinstance(origins, list) or len(origins) > MAX_ORIGINS:
        return f"Send a list of at most {MAX_ORIGINS} origins."
    for origin in origins:
        if origin == "*":
            continue
        if not isinstance(origin, str) or len(origin) > MAX_LENGTH or not _ORIGIN.fullmatch(origin):
            shown = str(origin)[:MAX_LENGTH]
            return (
                f'"{shown}" is not an origin. Send scheme and host, such as https://play.example.com, without a path.'
            )
    return ""


def is_allowed(origin: str, allowed: Sequence[str]) -> bool:
    """`origin` as a browser sends it."""
    wanted = origin.lower()
    return any(_admits(entry.lower(), wanted) for entry in allowed)


def _admits(entry: str, origin: str) -> bool:
    if entry in ("*", origin):
        return True
    before, wildcard, after = entry.partition("*.")
    if not wildcard or not origin.startswith(before) or not origin.endswith(f".{after}"):
        return False
    labels = origin[len(before) : -len(after) - 1]
    return bool(re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)*", labels))

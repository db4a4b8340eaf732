"""Options of a session that are valid one by one and have no effect together."""

from collections.abc import Iterator, Mapping
from typing import Any

UNITS = ("packets", "bytes")


def option_conflicts(options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(path, reason) of each option that has no effect. `options`: idle_timeout, max_lifetime and limits as in a
    request for a session; absent options conflict with nothing."""
    idle, lifetime = options.get("idle_timeout"), options.get("max_lifetime")
    if idle is not None and lifetime is not None and idle > lifetime:
        yield "idle_timeout", f"has no effect: the session ends earlier, at its max_lifetime of {lifetime} s"
    limits = options.get("limits") or {}
    for unit in UNITS:
        seat, session = (limits.get(scope, {}).get(unit) for scope in ("seat", "session"))
        if seat is not None and session is not None and seat > session:
            yield f"limits.seat.{unit}", f"has no effect: the limit of the whole session is {session} per second"


def filter_contradiction(filters: list[Mapping[str, Any]]) -> str:
    """Why no location can match all filters; empty when one can."""
    for field in {each["field"] for each in filters}:
        excluded: set[str] = set()
        for each in filters:
            if each["field"] == field and each["filter_type"] == "not":
                excluded |= _folded(each)
        for each in filters:
            wanted, kind = _folded(each), each["filter_type"]
            if each["field"] != field or kind == "not":
                continue
            if wanted <= excluded or (kind == "all" and wanted & excluded):
                return f"no location can match them: a filter on {field} requires what another filter excludes"
    return ""


def _folded(each: Mapping[str, Any]) -> set[str]:
    return {value.strip().casefold() for value in each["values"]}

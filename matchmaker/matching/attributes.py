"""The attributes of tickets and groups: do they fit the rules of their profile. Pure."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from .rules import (
    LARGEST,
    MAX_ATTRIBUTES_BYTES,
    MAX_LATENCY,
    MAX_TEXT,
    MAX_VALUES,
    NAT_CLASSES,
    NAT_RULE,
    Problem,
    Rules,
)
from .values import is_number, is_text


def without_failed_pings(rules: Rules, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes that `attribute_problems` accepts, without latencies of 0 or less, which stand for beacons that did
    not reply (EDGEGAP.md B1)."""
    if rules.latencies is None:
        return dict(attributes)
    measured = {beacon: ms for beacon, ms in attributes[rules.latencies].items() if ms > 0}
    return {**attributes, rules.latencies: measured}


def attribute_problems(rules: Rules, attributes: Mapping[str, Any]) -> list[Problem]:
    """Why these attributes cannot be matched: missing, unknown, of a wrong type or size (EDGEGAP.md M12)."""
    types = rules.types
    problems = [Problem(name, "is not an attribute of this profile") for name in sorted(attributes.keys() - types)]
    for name, kind in sorted(types.items()):
        check = _nat_class if name == NAT_RULE else CHECKS[kind]
        reason = check(attributes[name]) if name in attributes else "is missing"
        if reason:
            problems.append(Problem(name, reason))
    if not problems and len(json.dumps(attributes)) > MAX_ATTRIBUTES_BYTES:
        problems.append(Problem("", f"the attributes are longer than {MAX_ATTRIBUTES_BYTES} bytes of JSON"))
    return problems


def group_problems(rules: Rules, members: Sequence[Mapping[str, Any]]) -> list[Problem]:
    """Why players whose attributes are each valid cannot be matched as one group."""
    problems = []
    if len(members) > rules.max_group:
        problems.append(Problem("", f"a team of this profile has at most {rules.max_group} players"))
    for name in rules.strings:
        if len({member[name] for member in members}) > 1:
            problems.append(Problem(name, "differs within the group"))
    for name in rules.stages[0].overlaps:
        overlap = min(stage.overlaps[name] for stage in rules.stages)
        if len(frozenset[str].intersection(*(frozenset(member[name]) for member in members))) < overlap:
            problems.append(Problem(name, f"the group has fewer than {overlap} values in common"))
    return problems


def _number(value: Any) -> str:
    return "" if is_number(value) and abs(value) <= LARGEST else f"must be a number from {-LARGEST:g} to {LARGEST:g}"


def _nat_class(value: Any) -> str:
    return "" if isinstance(value, str) and value in NAT_CLASSES else f"must be one of {', '.join(NAT_CLASSES)}"


def _text(value: Any) -> str:
    return "" if is_text(value) else f"must be a string of 1 to {MAX_TEXT} characters"


def _texts(value: Any) -> str:
    if isinstance(value, list) and 0 < len(value) <= MAX_VALUES and all(map(is_text, value)):
        return ""
    return f"must be an array of 1 to {MAX_VALUES} strings of 1 to {MAX_TEXT} characters"


def _latencies(value: Any) -> str:
    """An empty object is valid: of a player who could measure no beacon."""
    if not isinstance(value, dict) or len(value) > MAX_VALUES or not all(map(is_text, value)):
        return f"must be an object of up to {MAX_VALUES} beacons and their milliseconds"
    if not all(is_number(ms) and -LARGEST <= ms <= MAX_LATENCY for ms in value.values()):
        return f"every latency must be a number of milliseconds up to {MAX_LATENCY:g}"
    return ""


CHECKS = {"latencies": _latencies, "number_difference": _number, "string_equality": _text, "intersection": _texts}

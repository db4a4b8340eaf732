"""What a single value in a configuration or an attribute may be. Pure."""

import math
import re
from collections.abc import Callable
from typing import Any

from .rules import LARGEST, MAX_TEXT, SMALLEST

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
MAX_PERIOD = 24 * 3600.0  # seconds


def is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Finite. An integer needs no such check, and one of 400 digits would not pass math.isfinite."""
    return is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_TEXT


# Validators for pydantic: they return the value, or raise ValueError with the reason.


def number(minimum: float, maximum: float = LARGEST, *, whole: bool = False) -> Callable[[Any], float]:
    kind = "whole number" if whole else "number"

    def validate(value: Any) -> float:
        if not (is_whole(value) if whole else is_number(value)) or value < minimum:
            raise ValueError(f"must be a {kind} of at least {minimum:g}")
        if value > maximum:
            raise ValueError(f"must be a {kind} of at most {maximum:g}")
        if 0 < value < SMALLEST:
            raise ValueError(f"must be 0, or at least {SMALLEST:g}")
        return value

    return validate


def whole_within(allowed: range) -> Callable[[Any], int]:
    def validate(value: Any) -> int:
        if not is_whole(value) or value not in allowed:
            raise ValueError(f"must be a whole number from {allowed[0]} to {allowed[-1]}")
        return value

    return validate


def filled_text(maximum: int) -> Callable[[Any], str]:
    def validate(value: Any) -> str:
        if not isinstance(value, str) or not value.strip() or len(value) > maximum:
            raise ValueError(f"must be a string of 1 to {maximum} characters, not all of them blank")
        return value

    return validate


def period(value: Any) -> float:
    """Seconds."""
    found = re.fullmatch(r"(\d{1,9})(ms|s|m|h)", value) if isinstance(value, str) else None
    seconds = int(found[1]) * UNITS[found[2]] if found else 0.0
    if not 0 < seconds <= MAX_PERIOD:
        raise ValueError('must be a time such as "500ms", "30s", "5m" or "1h", up to a day')
    return seconds

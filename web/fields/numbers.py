"""Numbers of the APIs: each is finite and has a minimum and a maximum, which the OpenAPI document states too.

Generators of clients choose a type by `format`, which web/openapi.py derives from the range. Without a range, a token
would become an int32 in Go, Rust and C#, and would not fit.
"""

import math
from typing import Any

from rest_framework import serializers

UINT32 = 2**32 - 1
INT32 = 2**31 - 1
INT64 = 2**63 - 1
MAX_UNIX_TIME = 32_503_680_000.0  # the year 3000


class Integer(serializers.IntegerField):
    """A whole number in a range."""

    def __init__(self, low: int, high: int, **options: Any) -> None:
        super().__init__(min_value=low, max_value=high, **options)


class Number(serializers.FloatField):
    """A finite number in a range. DRF's own field accepts "nan", which passes every comparison with a limit."""

    def __init__(self, low: float, high: float, **options: Any) -> None:
        super().__init__(min_value=low, max_value=high, **options)

    def to_internal_value(self, data: Any) -> float:
        try:
            value = super().to_internal_value(data)
        except OverflowError:
            self.fail("invalid")
        if not math.isfinite(value):
            self.fail("invalid")
        return value


class _Ranged(Integer):
    low, high = 0, INT32

    def __init__(self, **options: Any) -> None:
        low, high = options.pop("min_value", self.low), options.pop("max_value", self.high)
        super().__init__(low, high, **options)


class Count(_Ranged):
    """A number of items."""


class Token(_Ranged):
    """A 32-bit token of the edgegap dialect."""

    high = UINT32


class Port(_Ranged):
    low, high = 1, 65_535


class Seat(_Ranged):
    """The number of a player's place in a session; 0 is the host."""

    high = 254


class Version(_Ranged):
    """The number of a version, from 1."""

    low = 1


class _RangedNumber(Number):
    low, high = 0.0, 1e9

    def __init__(self, **options: Any) -> None:
        low, high = options.pop("min_value", self.low), options.pop("max_value", self.high)
        super().__init__(low, high, **options)


class Milliseconds(_RangedNumber):
    pass


class RoundTrip(Milliseconds):
    """As reported by a player. 0 and less are accepted but are not measurements (web/fields/measurements.py)."""

    low = -1e9


class Seconds(_RangedNumber):
    pass


class Share(_RangedNumber):
    high = 1.0


class UnixTime(_RangedNumber):
    """Seconds since 1970."""

    high = MAX_UNIX_TIME


class Latitude(_RangedNumber):
    low, high = -90.0, 90.0


class Longitude(_RangedNumber):
    low, high = -180.0, 180.0

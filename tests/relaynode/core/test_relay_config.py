"""Which settings of the core are refused."""

import pytest

from relaynode.core.relay_config import RelayConfig


def test_seat_limits_of_a_config_are_checked() -> None:
    for bad in ({"timeout": 0.5}, {"timeout": 66}, {"keep_alive_ms": 0}, {"max_seats": 0}, {"max_seats": 2_000_000}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            RelayConfig(**bad)  # type: ignore[arg-type]


def test_the_bounds_themselves_are_valid() -> None:
    RelayConfig(timeout=1, keep_alive_ms=65_535, max_seats=1)
    RelayConfig(timeout=65, keep_alive_ms=1, max_seats=1_000_000)

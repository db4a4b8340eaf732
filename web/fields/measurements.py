"""Round-trip times that players report. Only those above 0 are measurements: SDKs and browsers report 0 or -1 for a
ping that failed, and without this rule an unreachable relay would count as the nearest one.
"""

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from rest_framework import serializers

from ..http.input_warnings import MAX_NAME, InputWarning, warn
from .numbers import Milliseconds, RoundTrip, Share

MAX_RTT_MS = 60_000.0
MAX_MEASUREMENTS = 200  # of a player
MAX_PLACE_NAME = 50  # characters of the name of a node or a location


class MeasurementSerializer(serializers.Serializer):
    """A player's measurement of a node's beacon, with the node's signature (PROTOCOL.md 11.1)."""

    node = serializers.SlugField(max_length=MAX_PLACE_NAME)
    rtt_ms = RoundTrip(max_value=MAX_RTT_MS, help_text="0 or less: not measured.")
    jitter_ms = Milliseconds(max_value=MAX_RTT_MS, default=0.0)
    loss = Share(default=0.0)
    proof = serializers.CharField(max_length=100, allow_blank=True, default="", help_text="Base64url, 56 bytes.")


def measured(player: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The player without the `latencies` and `measurements` that are 0 or less; adds a warning for each of them.
    `path`: the player's path in warnings, such as "users[0]."."""
    found = dict(player)
    latencies, measurements = player.get("latencies") or {}, player.get("measurements") or []
    warn(chain(not_measured(latencies, f"{path}latencies"), _unmeasured(measurements, f"{path}measurements")))
    if latencies:
        found["latencies"] = {name: ms for name, ms in latencies.items() if ms > 0}
    if measurements:
        found["measurements"] = [item for item in measurements if item["rtt_ms"] > 0]
    return found


def not_measured(latencies: Mapping[str, float], path: str) -> Iterator[InputWarning]:
    """A warning for each latency of 0 ms or less."""
    return (_warning(f"{path}.{name[:MAX_NAME]}") for name, ms in latencies.items() if ms <= 0)


def _unmeasured(measurements: list[Mapping[str, Any]], path: str) -> Iterator[InputWarning]:
    return (_warning(f"{path}[{index}].rtt_ms") for index, item in enumerate(measurements) if item["rtt_ms"] <= 0)


def _warning(field: str) -> InputWarning:
    text = "A round-trip time of 0 ms or less is not a measurement and has no effect. Leave out what was not measured."
    return InputWarning(field, "not_measured", text)

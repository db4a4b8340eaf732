"""Round-trip times that players report. Only those above 0 are measurements: SDKs and browsers report 0 or -1 for a
ping that failed, and without this rule an unreachable relay would count as the nearest one.
"""

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from ..http.input_warnings import MAX_NAME, InputWarning, warn


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

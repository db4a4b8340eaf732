"""The rules of one version of a profile, parsed, and the limits of what rules and tickets may contain. Pure."""

from dataclasses import dataclass, field
from typing import Any

MAX_SEATS = 255  # of a relay session
MAX_ATTRIBUTES = 32
MAX_VALUES = 64  # of an array of strings, and of the beacons of a ticket
MAX_TEXT = 128
# Numbers are 0 or lie between these two: a smaller one overflows in a division.
SMALLEST, LARGEST = 1e-6, 1e12
MAX_LATENCY = 60_000.0  # ms
# The rule of this name compares the NAT classes of players (PROTOCOL.md 12.2) by these numbers: the higher, the less
# likely a direct path is.
NAT_RULE = "nat_class"
NAT_CLASSES = {
    "endpoint_independent": 0.0,
    "address_dependent": 1.0,
    "unknown": 2.0,
    "port_dependent": 2.0,
    "random_ports": 3.0,
    "udp_blocked": 4.0,
}
MAX_ATTRIBUTES_BYTES = 16_384  # of a ticket's attributes, as JSON


@dataclass(frozen=True, slots=True)
class Problem:
    """`path` as in JavaScript: rules.initial.elo.attributes.max_difference."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Stage:
    """The rules that apply to a ticket from `since` seconds of waiting on. Each dictionary: rule -> its setting."""

    since: float
    team_count: int
    min_team_size: int
    max_team_size: int
    difference: float  # ms; infinite in a profile without a latencies rule
    max_latency: float  # ms
    numbers: dict[str, float]
    overlaps: dict[str, int]
    default_latency: float  # ms to every beacon, for a player who could measure none
    accepts_smaller: bool  # an expansion has lowered min_team_size: matches that are not full are made at once


@dataclass(frozen=True, slots=True)
class Rules:
    """Times in seconds. `stages` by ascending `since`, the first at 0."""

    stages: tuple[Stage, ...]
    latencies: str | None  # the name of the latencies rule
    strings: tuple[str, ...]  # the names of the string_equality rules
    expiration: float
    removal: float
    group_inactivity: float
    max_retries: int
    host: str
    session: dict[str, Any] = field(default_factory=dict)  # options for the request for a session

    def stage_at(self, age: float) -> int:
        """The index of the stage that applies to a ticket of this age."""
        index = 0
        while index + 1 < len(self.stages) and self.stages[index + 1].since <= age:
            index += 1
        return index

    @property
    def types(self) -> dict[str, str]:
        """The type of each rule that needs an attribute, by the name of both."""
        named = dict.fromkeys(self.stages[0].numbers, "number_difference")
        named |= dict.fromkeys(self.strings, "string_equality")
        named |= dict.fromkeys(self.stages[0].overlaps, "intersection")
        return named | ({self.latencies: "latencies"} if self.latencies else {})

    @property
    def max_group(self) -> int:
        """Players of the largest team that any stage allows."""
        return max(stage.max_team_size for stage in self.stages)

    @property
    def max_players(self) -> int:
        """Players of the largest match that any stage allows."""
        return max(stage.team_count * stage.max_team_size for stage in self.stages)

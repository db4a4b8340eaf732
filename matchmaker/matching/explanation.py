"""Why a ticket is still waiting: the other players in the pool, and the rules that exclude them. And why the players of
a match were matched: how far they are apart by each rule. Pure."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .pool import PoolTicket, Unit, units_of
from .rules import Rules, Stage

REASONS = {
    "no_reachable_beacon": "The player has no beacon within max_latency.",
    "no_other_players": "No other player is searching under this version of the profile.",
    "excluded_by_rules": "The rules exclude every other player.",
    "too_few_compatible_players": "Fewer players are compatible than the smallest match needs.",
    "waiting_for_full_match": "Enough players are compatible for a smaller match, which is made shortly before "
    "the next expansion or the end of the search.",
    "incompatible_with_each_other": "Enough players are compatible with this one, but not with each other.",
}


@dataclass(frozen=True, slots=True)
class WaitExplanation:
    """Counts are of players. `blocked_by_rule`: rule -> players that it excludes; several rules may exclude the same
    player. `reason`: a key of REASONS. Times in seconds from now; `next_expansion_in` None: there is no further one."""

    reason: str
    group_size: int  # players of the ticket's group, the player included
    waiting_players: int  # in the pool, without the ticket's own group
    compared_players: int  # of these, the players who were compared with the ticket
    compatible_players: int  # excluded by no rule, in a comparison of the two alone
    missing_players: int  # for a full match, beyond the own group
    missing_players_min: int  # for the smallest match
    blocked_by_rule: dict[str, int]
    next_expansion_in: float | None
    next_expansion_changes: dict[str, dict[str, float]]  # rule or player_count -> setting -> new value
    expires_in: float


def explain(rules: Rules, tickets: Sequence[PoolTicket], ticket_id: str, now: float) -> WaitExplanation:
    """Raises KeyError when the ticket is not waiting."""
    units, _ = units_of(rules, tickets, now)
    own = next((unit for unit in units if ticket_id in unit.tickets), None)
    if own is None:
        raise KeyError(ticket_id)
    blocked: Counter[str] = Counter()
    compatible = 0
    others = [unit for unit in units if unit is not own]
    for other in others:
        excluded_by = list(blocking(rules, own, other))
        compatible += 0 if excluded_by else other.size
        for rule in excluded_by:
            blocked[rule] += other.size
    later = [stage for stage in rules.stages if stage.since > now - own.since]
    waiting = sum(unit.size for unit in others)
    missing = own.stage.team_count * own.stage.max_team_size - own.size
    missing_min = max(0, own.stage.team_count * own.stage.min_team_size - own.size)
    return WaitExplanation(
        reason=_reason(rules, own, waiting, compatible, missing, missing_min),
        group_size=own.size,
        waiting_players=waiting,
        compared_players=waiting,
        compatible_players=compatible,
        missing_players=missing,
        missing_players_min=missing_min,
        blocked_by_rule=dict(blocked.most_common()),
        next_expansion_in=later[0].since - (now - own.since) if later else None,
        next_expansion_changes=_changes(rules, own.stage, later[0]) if later else {},
        expires_in=rules.expiration - (now - own.since),
    )


def _reason(rules: Rules, own: Unit, waiting: int, compatible: int, missing: int, missing_min: int) -> str:
    if rules.latencies and not own.latencies:
        return "no_reachable_beacon"
    if not waiting and missing_min:
        return "no_other_players"
    if not compatible and missing_min:
        return "excluded_by_rules"
    if compatible < missing_min:
        return "too_few_compatible_players"
    return "waiting_for_full_match" if compatible < missing else "incompatible_with_each_other"


def blocking(rules: Rules, a: Unit, b: Unit) -> Iterator[str]:
    """The rules that exclude a match of these two, regardless of its other players."""
    if a.stage.team_count != b.stage.team_count or not _fit_teams(a, b):
        yield "player_count"
    for index, name in enumerate(rules.strings):
        if a.strings[index] != b.strings[index]:
            yield name
    for index, name in enumerate(a.stage.numbers):
        if abs(a.numbers[index] - b.numbers[index]) > min(a.limits[index], b.limits[index]):
            yield name
    for index, name in enumerate(a.stage.overlaps):
        if len(a.values[index] & b.values[index]) < max(a.overlaps[index], b.overlaps[index]):
            yield name
    if rules.latencies and not _share_beacon(a, b):
        yield rules.latencies


def _fit_teams(a: Unit, b: Unit) -> bool:
    max_size = min(a.stage.max_team_size, b.stage.max_team_size)
    fit_one_team = a.size + b.size <= max_size
    return max(a.size, b.size) <= max_size and (fit_one_team or a.stage.team_count > 1)


def _share_beacon(a: Unit, b: Unit) -> bool:
    allowed = min(a.stage.difference, b.stage.difference)
    return any(abs(ms - b.latencies[beacon]) <= allowed for beacon, ms in a.latencies.items() if beacon in b.latencies)


def _changes(rules: Rules, now: Stage, then: Stage) -> dict[str, dict[str, float]]:
    found = {name: {"max_difference": limit} for name, limit in then.numbers.items() if limit != now.numbers[name]} | {
        name: {"overlap": overlap} for name, overlap in then.overlaps.items() if overlap != now.overlaps[name]
    }
    if rules.latencies:
        found[rules.latencies] = _settings(now, then, "difference", "max_latency")
    found["player_count"] = _settings(now, then, "team_count", "min_team_size", "max_team_size")
    return {rule: settings for rule, settings in found.items() if settings}


def _settings(now: Stage, then: Stage, *names: str) -> dict[str, float]:
    return {name: getattr(then, name) for name in names if getattr(then, name) != getattr(now, name)}


@dataclass(frozen=True, slots=True)
class RuleOutcome:
    """A rule, and how far the players of a match are apart by it. A group counts as one, as it did in the matching."""

    rule: str
    type: str
    actual: str
    allowed: str


def rule_outcomes(rules: Rules, tickets: Sequence[PoolTicket], now: float) -> list[RuleOutcome]:
    """`tickets`: all tickets of a match that was formed at `now`. In the order of `Rules.types`."""
    units, _ = units_of(rules, tickets, now)
    if not units:
        return []
    found = [*_number_outcomes(units), *_string_outcomes(rules, units), *_overlap_outcomes(units)]
    return [*found, _latency_outcome(rules.latencies, units)] if rules.latencies else found


def _number_outcomes(units: Sequence[Unit]) -> Iterator[RuleOutcome]:
    for index, name in enumerate(units[0].stage.numbers):
        values = [unit.numbers[index] for unit in units]
        apart = f"{min(values):g} to {max(values):g}, {max(values) - min(values):g} apart"
        yield RuleOutcome(
            name, "number_difference", apart, f"at most {min(unit.limits[index] for unit in units):g} apart"
        )


def _string_outcomes(rules: Rules, units: Sequence[Unit]) -> Iterator[RuleOutcome]:
    for index, name in enumerate(rules.strings):
        yield RuleOutcome(
            name, "string_equality", " and ".join(sorted({unit.strings[index] for unit in units})), "the same"
        )


def _overlap_outcomes(units: Sequence[Unit]) -> Iterator[RuleOutcome]:
    for index, name in enumerate(units[0].stage.overlaps):
        shared = frozenset[str].intersection(*(unit.values[index] for unit in units))
        wanted = max(unit.overlaps[index] for unit in units)
        yield RuleOutcome(name, "intersection", ", ".join(sorted(shared)) or "nothing", f"{wanted} in common")


def _latency_outcome(name: str, units: Sequence[Unit]) -> RuleOutcome:
    difference = min(unit.stage.difference for unit in units)
    allowed = f"{difference:g} ms apart, none above {min(unit.stage.max_latency for unit in units):g} ms"
    shared = set(units[0].latencies).intersection(*(unit.latencies for unit in units))
    legs = {beacon: sorted(unit.latencies[beacon] for unit in units) for beacon in shared}
    near = sorted((sum(ms), beacon) for beacon, ms in legs.items() if ms[-1] - ms[0] <= difference)
    best = [f"{beacon} {legs[beacon][0]:.0f} to {legs[beacon][-1]:.0f} ms" for _, beacon in near]
    return RuleOutcome(name, "latencies", ", ".join(best) or "no beacon", allowed)

"""Why a ticket still waits: who else is in the pool, and which rule keeps each of them away. And why those of a match
are in it: how near they are in what each rule looks at. Pure."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .pool import Ticket, Unit, units_of
from .profiles import Profile, Stage

REASONS = {
    "no_beacon": "no beacon is within max_latency for the ticket",
    "alone": "no other player waits",
    "rules": "the rules keep all the others away",
    "too_few": "those who could play with it are fewer than the smallest match needs",
    "not_full": "there are enough for a smaller match, which is made near the next expansion or the end",
    "not_together": "there are enough for a full match, each taken alone, but not all of them with each other",
}


@dataclass(frozen=True, slots=True)
class Why:
    """Counts are of players. `blocked`: rule -> players it keeps away; one player may be kept away by several rules.
    Times in seconds from now; `next_expansion` None when no rule changes any more. `reason`: see REASONS."""

    reason: str
    own: int  # players in the ticket's group, itself included
    waiting: int  # in the pool, without the ticket's own group
    compared: int  # of them, those with whom the ticket was compared
    compatible: int  # kept away by no rule, looking at the two alone
    wanted: int  # for a full match, beyond the own group
    wanted_least: int  # for the smallest match
    blocked: dict[str, int]
    next_expansion: float | None
    changes: dict[str, dict[str, float]]  # what it changes: rule or player_count -> setting -> new value
    expires: float


def explain(profile: Profile, tickets: Sequence[Ticket], ticket_id: str, now: float) -> Why:
    """Raises KeyError when the ticket is not among those who wait."""
    units, _ = units_of(profile, tickets, now)
    own = next((unit for unit in units if ticket_id in unit.tickets), None)
    if own is None:
        raise KeyError(ticket_id)
    blocked: Counter[str] = Counter()
    compatible = 0
    others = [unit for unit in units if unit is not own]
    for other in others:
        rules = list(blocking(profile, own, other))
        compatible += 0 if rules else other.size
        for rule in rules:
            blocked[rule] += other.size
    later = [stage for stage in profile.stages if stage.since > now - own.since]
    waiting = sum(unit.size for unit in others)
    wanted = own.stage.team_count * own.stage.max_team_size - own.size
    wanted_least = max(0, own.stage.team_count * own.stage.min_team_size - own.size)
    return Why(
        reason=_reason(profile, own, waiting, compatible, wanted, wanted_least),
        own=own.size,
        waiting=waiting,
        compared=waiting,
        compatible=compatible,
        wanted=wanted,
        wanted_least=wanted_least,
        blocked=dict(blocked.most_common()),
        next_expansion=later[0].since - (now - own.since) if later else None,
        changes=_changes(profile, own.stage, later[0]) if later else {},
        expires=profile.expiration - (now - own.since),
    )


def _reason(profile: Profile, own: Unit, waiting: int, compatible: int, wanted: int, wanted_least: int) -> str:
    if profile.latencies and not own.latencies:
        return "no_beacon"
    if not waiting and wanted_least:
        return "alone"
    if not compatible and wanted_least:
        return "rules"
    if compatible < wanted_least:
        return "too_few"
    return "not_full" if compatible < wanted else "not_together"


def blocking(profile: Profile, a: Unit, b: Unit) -> Iterator[str]:
    """The rules by which these two cannot be in one match, whoever else is."""
    if a.stage.team_count != b.stage.team_count or not _fit(a, b):
        yield "player_count"
    for index, name in enumerate(profile.strings):
        if a.strings[index] != b.strings[index]:
            yield name
    for index, name in enumerate(a.stage.numbers):
        if abs(a.numbers[index] - b.numbers[index]) > min(a.limits[index], b.limits[index]):
            yield name
    for index, name in enumerate(a.stage.overlaps):
        if len(a.values[index] & b.values[index]) < max(a.overlaps[index], b.overlaps[index]):
            yield name
    if profile.latencies and not _meet(a, b):
        yield profile.latencies


def _fit(a: Unit, b: Unit) -> bool:
    most = min(a.stage.max_team_size, b.stage.max_team_size)
    together = a.size + b.size <= most
    return max(a.size, b.size) <= most and (together or a.stage.team_count > 1)


def _meet(a: Unit, b: Unit) -> bool:
    allowed = min(a.stage.difference, b.stage.difference)
    return any(abs(ms - b.latencies[beacon]) <= allowed for beacon, ms in a.latencies.items() if beacon in b.latencies)


def _changes(profile: Profile, now: Stage, then: Stage) -> dict[str, dict[str, float]]:
    found = {name: {"max_difference": limit} for name, limit in then.numbers.items() if limit != now.numbers[name]} | {
        name: {"overlap": overlap} for name, overlap in then.overlaps.items() if overlap != now.overlaps[name]
    }
    if profile.latencies:
        found[profile.latencies] = _settings(now, then, "difference", "max_latency")
    found["player_count"] = _settings(now, then, "team_count", "min_team_size", "max_team_size")
    return {rule: settings for rule, settings in found.items() if settings}


def _settings(now: Stage, then: Stage, *names: str) -> dict[str, float]:
    return {name: getattr(then, name) for name in names if getattr(then, name) != getattr(now, name)}


@dataclass(frozen=True, slots=True)
class Kept:
    """A rule, and how the players of a match keep it. A group counts as one, as it did when it was matched."""

    rule: str
    type: str
    found: str
    allowed: str


def kept(profile: Profile, tickets: Sequence[Ticket], now: float) -> list[Kept]:
    """`tickets`: all of a match that was made at `now`. In the order of `Profile.rules`."""
    units, _ = units_of(profile, tickets, now)
    if not units:
        return []
    found = [*_numbers_kept(units), *_strings_kept(profile, units), *_overlaps_kept(units)]
    return [*found, _latencies_kept(profile.latencies, units)] if profile.latencies else found


def _numbers_kept(units: Sequence[Unit]) -> Iterator[Kept]:
    for index, name in enumerate(units[0].stage.numbers):
        values = [unit.numbers[index] for unit in units]
        apart = f"{min(values):g} to {max(values):g}, {max(values) - min(values):g} apart"
        yield Kept(name, "number_difference", apart, f"at most {min(unit.limits[index] for unit in units):g} apart")


def _strings_kept(profile: Profile, units: Sequence[Unit]) -> Iterator[Kept]:
    for index, name in enumerate(profile.strings):
        yield Kept(name, "string_equality", " and ".join(sorted({unit.strings[index] for unit in units})), "the same")


def _overlaps_kept(units: Sequence[Unit]) -> Iterator[Kept]:
    for index, name in enumerate(units[0].stage.overlaps):
        shared = frozenset[str].intersection(*(unit.values[index] for unit in units))
        wanted = max(unit.overlaps[index] for unit in units)
        yield Kept(name, "intersection", ", ".join(sorted(shared)) or "nothing", f"{wanted} in common")


def _latencies_kept(name: str, units: Sequence[Unit]) -> Kept:
    difference = min(unit.stage.difference for unit in units)
    allowed = f"{difference:g} ms apart, none above {min(unit.stage.max_latency for unit in units):g} ms"
    shared = set(units[0].latencies).intersection(*(unit.latencies for unit in units))
    legs = {beacon: sorted(unit.latencies[beacon] for unit in units) for beacon in shared}
    near = sorted((sum(ms), beacon) for beacon, ms in legs.items() if ms[-1] - ms[0] <= difference)
    best = [f"{beacon} {legs[beacon][0]:.0f} to {legs[beacon][-1]:.0f} ms" for _, beacon in near]
    return Kept(name, "latencies", ", ".join(best) or "no beacon", allowed)

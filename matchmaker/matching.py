"""Waiting tickets -> matches. Pure: time is an argument, nothing is read or written.

Oldest first, each unit that is still unmatched looks for the best match around itself: the index narrows, candidates
are ordered by a cost of named terms, and a depth-first search takes them in that order, going back where a choice leads
nowhere. The search is whole for small pools and bounded for large ones, so that one pass stays linear in the tickets.

A match is legal when it is legal by the present rules of *every* member: one that has waited for longer never drags
one that has not into what its own rules still forbid. Full matches first; a smaller one only when a member is about
to expire or to reach its next expansion (compat spec 5.5), and then the largest legal.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from .pool import Pool, Ticket, Unit, members, units_of
from .profiles import Profile, Stage
from .search import Search, Selection, packing

# How long before an expansion or the expiry a smaller match may be made, in seconds: enough for several passes.
NEAR_END = 2.0
# Candidates looked at for one match: so many, or twice a full match.
CANDIDATES = 32
# Steps of the search that a whole pass may spend on going back, and one seed of them.
BACKTRACKING, BACKTRACKING_OF_SEED = 20_000, 1_000
# Beacons a match may be made at, the seed's nearest first.
BEACONS = 8
# What a whole time of waiting is worth against the largest difference allowed by one rule.
AGE_CREDIT = 0.5


@dataclass(frozen=True, slots=True)
class Match:
    """`teams` hold ticket ids; `host` is one of them. `quality` from 0 (as far apart as is allowed) to 1."""

    teams: tuple[tuple[str, ...], ...]
    host: str
    quality: float
    beacon: str | None
    full: bool

    @property
    def tickets(self) -> tuple[str, ...]:
        return tuple(ticket for team in self.teams for ticket in team)


@dataclass(frozen=True, slots=True)
class Backfill:
    """A match that plays and has room for one unit more. `unit`: who plays there, as one."""

    id: str
    unit: Unit


@dataclass(frozen=True, slots=True)
class Filled:
    backfill: str
    tickets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pass:
    matches: list[Match]
    filled: list[Filled]
    look_again: float | None  # when time alone may change something


def make_matches(profile: Profile, tickets: Sequence[Ticket], now: float, backfills: Sequence[Backfill] = ()) -> Pass:
    """One pass over all who wait in a profile. Times in seconds; every attribute is there and valid."""
    units = units_of(profile, tickets, now)
    making = _Making(profile, Pool(profile, units), now)
    filled = [found for backfill in backfills if (found := making.fill(backfill))]
    matches = [match for index in range(len(units)) if (match := making.match(index, full=True))]
    ending = [index for index, unit in enumerate(units) if _is_near_end(profile, unit, now)]
    matches += [match for index in ending if (match := making.match(index, full=False))]
    left = [unit for index, unit in enumerate(units) if making.pool.waiting >> index & 1]
    return Pass(matches, filled, min((_next_look(profile, unit, now) for unit in left), default=None))


def _ends(profile: Profile, unit: Unit) -> list[float]:
    """Ages at which the unit's rules change, and when it expires."""
    return [stage.since for stage in profile.stages[1:]] + [profile.expiration]


def _lead(profile: Profile) -> float:
    return min(NEAR_END, profile.expiration / 4)


def _is_near_end(profile: Profile, unit: Unit, now: float) -> bool:
    age = now - unit.since
    return any(0 <= end - age <= _lead(profile) for end in _ends(profile, unit))


def _next_look(profile: Profile, unit: Unit, now: float) -> float:
    times = [unit.since + end - lead for end in _ends(profile, unit) for lead in (_lead(profile), 0.0)]
    return min(time for time in times if time > now)


class _Making:
    """One pass over one pool."""

    def __init__(self, profile: Profile, pool: Pool, now: float) -> None:
        self.profile, self.pool, self.now = profile, pool, now
        self.backtracking = BACKTRACKING

    def match(self, index: int, full: bool) -> Match | None:
        """The best match around the unit of that index, taken out of the pool."""
        if not self.pool.waiting >> index & 1:
            return None
        seed = self.pool.units[index]
        start = Selection.of(seed)
        wanted = seed.stage.team_count * (seed.stage.max_team_size if full else seed.stage.min_team_size)
        found = self.pool.compatible(seed) & ~(1 << index)
        if seed.size + self.pool.players(found) < wanted:
            return None
        for beacon in self._beacons(seed):
            around = found if beacon is None else self.pool.near(seed, beacon, found)
            if seed.size + self.pool.players(around) < wanted:
                continue
            for candidates in self._candidates(seed, beacon, around, wanted):
                chosen = self._search(start.at(beacon, seed), candidates, full)
                if chosen:
                    self.pool.take((index, *chosen.indices))
                    return self._made(chosen, (seed, *(self.pool.units[number] for number in chosen.indices)))
        return None

    def fill(self, backfill: Backfill) -> Filled | None:
        """One unit for a match that plays: the closest. Sizes of teams do not count (compat spec 5.6)."""
        seed = backfill.unit
        found = self.pool.compatible(seed)
        for beacon in self._beacons(seed):
            around = found if beacon is None else self.pool.near(seed, beacon, found)
            start = Selection.of(seed).at(beacon, seed)
            for index in self._ordered(seed, beacon, around, CANDIDATES):
                if start.allows(self.pool.units[index]):
                    self.pool.take((index,))
                    return Filled(backfill.id, self.pool.units[index].tickets)
        return None

    def _beacons(self, seed: Unit) -> list[str] | list[None]:
        if self.profile.latencies is None:
            return [None]
        return sorted(seed.latencies, key=lambda beacon: (seed.latencies[beacon], beacon))[:BEACONS]

    def _candidates(self, seed: Unit, beacon: str | None, found: int, wanted: int) -> Iterator[list[int]]:
        """Lists to search, the better first: the close ones when they are enough to choose from, then all."""
        limit = max(CANDIDATES, 2 * wanted)
        close = self.pool.close(seed, found)
        if close != found and seed.size + self.pool.players(close) >= 2 * wanted:
            yield self._ordered(seed, beacon, close, limit)
        yield self._ordered(seed, beacon, found, limit)

    def _ordered(self, seed: Unit, beacon: str | None, found: int, limit: int) -> list[int]:
        units, cost = self.pool.units, self._cost(seed, beacon)
        return [index for _, index in sorted((cost(units[index]), index) for index in members(found, limit))]

    def _cost(self, seed: Unit, beacon: str | None) -> Callable[[Unit], float]:
        """Of another unit for this seed; lower is better. Each rule's difference as a share of what it allows, and a
        credit for having waited."""
        age_weight = AGE_CREDIT / self.profile.expiration
        terms = [(number, _share(1.0, limit)) for number, limit in zip(seed.numbers, seed.limits, strict=True)]
        here = seed.latencies[beacon] if beacon is not None else 0.0
        spread_weight = _share(1.0, seed.stage.difference)
        height_weight = _share(1.0, seed.stage.max_latency)  # a near relay, not just one that is equally far for all

        def cost(other: Unit) -> float:
            total = age_weight * (other.since - self.now)
            for (number, weight), theirs in zip(terms, other.numbers):  # noqa: B905  as many; this is the inner loop
                total += weight * abs(number - theirs)
            if beacon is not None:
                there = other.latencies[beacon]
                total += spread_weight * abs(here - there) + height_weight * there
            return total

        return cost

    def _search(self, start: Selection, candidates: list[int], full: bool) -> Selection | None:
        spare = min(BACKTRACKING_OF_SEED, self.backtracking)
        search = Search(self.pool.units, candidates, full, steps=len(candidates) + spare)
        found = search.run(start)
        self.backtracking -= max(0, spare - search.steps)
        return found

    def _made(self, chosen: "Selection", units: Sequence[Unit]) -> Match:
        teams = _teams(units, chosen.team_count, chosen.min_team, chosen.max_team)
        loosest = self.profile.stages[-1]
        return Match(
            teams=teams,
            host=self._host(units, chosen.beacon),
            quality=_quality(units, chosen.beacon, loosest),
            beacon=chosen.beacon,
            full=chosen.size == chosen.team_count * chosen.max_team,
        )

    def _host(self, units: Sequence[Unit], beacon: str | None) -> str:
        """The ticket that has waited the longest; or, of the unit that is best connected, the first."""

        def latency(unit: Unit) -> float:
            return unit.latencies[beacon] if beacon is not None else 0.0

        if self.profile.host == "best_connected":
            return min(units, key=lambda unit: (latency(unit), unit.since, unit.tickets)).tickets[0]
        return min(units, key=lambda unit: (unit.since, unit.tickets)).tickets[0]


# -- what was made ---------------------------------------------------------------------------------


def _teams(units: Sequence[Unit], count: int, least: int, most: int) -> tuple[tuple[str, ...], ...]:
    """Largest units first; among equals the strongest go to one team and then to the other, back and forth."""
    ordered = sorted(units, key=lambda unit: (-unit.size, -unit.numbers[0] if unit.numbers else 0.0, unit.since))
    if ordered[0].size == 1:
        places = tuple(_back_and_forth(index, count) for index in range(len(ordered)))
    else:  # the search has asked the same, so there is a way
        places = packing(tuple(unit.size for unit in ordered), count, least, most) or ()
    teams: list[list[str]] = [[] for _ in range(count)]
    for unit, team in zip(ordered, places, strict=True):
        teams[team].extend(unit.tickets)
    return tuple(tuple(team) for team in teams)


def _back_and_forth(index: int, count: int) -> int:
    lap, place = divmod(index, count)
    return count - 1 - place if lap % 2 else place


def _quality(units: Sequence[Unit], beacon: str | None, loosest: Stage) -> float:
    """1 less the mean share of what the loosest rules allow: of each number, of the latencies' spread and height."""
    shares = [
        _share(max(column) - min(column), limit)
        for column, limit in zip(
            zip(*(unit.numbers for unit in units), strict=True), loosest.numbers.values(), strict=True
        )
    ]
    if beacon is not None:
        latencies = [unit.latencies[beacon] for unit in units]
        shares.append(_share(max(latencies) - min(latencies), loosest.difference))
        shares.append(_share(max(latencies), loosest.max_latency))
    return 1 - sum(min(1.0, share) for share in shares) / len(shares) if shares else 1.0


def _share(part: float, whole: float) -> float:
    return part / whole if 0 < whole < math.inf else 0.0

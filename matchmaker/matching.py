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
from dataclasses import dataclass, replace
from functools import lru_cache

from .pool import Pool, Ticket, Unit, members, units_of
from .profiles import Profile, Stage

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
        start = _Selection.of(seed)
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
            start = _Selection.of(seed).at(beacon, seed)
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

    def _search(self, start: "_Selection", candidates: list[int], full: bool) -> "_Selection | None":
        spare = min(BACKTRACKING_OF_SEED, self.backtracking)
        search = _Search(self.pool.units, candidates, full, steps=len(candidates) + spare)
        found = search.run(start)
        self.backtracking -= max(0, spare - search.steps)
        return found

    def _made(self, chosen: "_Selection", units: Sequence[Unit]) -> Match:
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


# -- what may be together --------------------------------------------------------------------------


Span = tuple[float, float, float]  # lowest, highest, and by how much they may differ
Shared = tuple[frozenset[str], int]  # what all share, and how many they must


@dataclass(frozen=True, slots=True)
class _Selection:
    """Units that may be in one match, as what they leave open to another. Limits are the strictest of any member."""

    indices: tuple[int, ...]  # without the seed
    size: int
    sizes: tuple[int, ...]
    team_count: int
    min_team: int
    max_team: int
    strings: tuple[str, ...]
    spans: tuple[Span, ...]  # of each number
    values: tuple[Shared, ...]  # of each intersection
    beacon: str | None
    latency: Span  # at the beacon

    @classmethod
    def of(cls, seed: Unit) -> "_Selection":
        stage = seed.stage
        return cls(
            indices=(),
            size=seed.size,
            sizes=(seed.size,),
            team_count=stage.team_count,
            min_team=stage.min_team_size,
            max_team=stage.max_team_size,
            strings=seed.strings,
            spans=tuple((n, n, limit) for n, limit in zip(seed.numbers, seed.limits, strict=True)),
            values=tuple(zip(seed.values, seed.overlaps, strict=True)),
            beacon=None,
            latency=(0.0, 0.0, math.inf),
        )

    def at(self, beacon: str | None, seed: Unit) -> "_Selection":
        """The same, to be made at that beacon."""
        if beacon is None:
            return self
        ms = seed.latencies[beacon]
        return replace(self, beacon=beacon, latency=(ms, ms, seed.stage.difference))

    def add(self, index: int, unit: Unit) -> "_Selection | None":
        """None when the rules, or the sizes of the teams, forbid it."""
        stage = unit.stage
        min_team, max_team = max(self.min_team, stage.min_team_size), min(self.max_team, stage.max_team_size)
        size = self.size + unit.size
        if stage.team_count != self.team_count or min_team > max_team or size > self.team_count * max_team:
            return None
        merged = self._merged(unit)
        if merged is None:
            return None
        sizes = (*self.sizes, 1) if unit.size == 1 else tuple(sorted((*self.sizes, unit.size), reverse=True))
        if sizes[0] > 1 and packing(sizes, self.team_count, 0, max_team) is None:
            return None
        spans, values, latency = merged
        return _Selection(
            (*self.indices, index), size, sizes, self.team_count, min_team, max_team,
            self.strings, spans, values, self.beacon, latency,
        )  # fmt: skip

    def allows(self, unit: Unit) -> bool:
        """By all rules but player_count."""
        return self._merged(unit) is not None

    def _merged(self, unit: Unit) -> tuple[tuple[Span, ...], tuple[Shared, ...], Span] | None:
        """Spans, values and latency with the unit; None when a rule forbids it."""
        if unit.strings != self.strings:
            return None
        spans = []
        for span, number, limit in zip(self.spans, unit.numbers, unit.limits, strict=True):
            widened = _widened(span, number, limit)
            if widened is None:
                return None
            spans.append(widened)
        values = []
        for (shared, overlap), mine, wanted in zip(self.values, unit.values, unit.overlaps, strict=True):
            shared, overlap = shared & mine, max(overlap, wanted)
            if len(shared) < overlap:
                return None
            values.append((shared, overlap))
        latency: Span | None = self.latency
        if self.beacon is not None:
            ms = unit.latencies.get(self.beacon)
            latency = None if ms is None else _widened(self.latency, ms, unit.stage.difference)
        return None if latency is None else (tuple(spans), tuple(values), latency)

    @property
    def is_full(self) -> bool:
        return self.size == self.team_count * self.max_team

    @property
    def is_legal(self) -> bool:
        """As it stands: every team can have the smallest size, a group alone shares what it must, nobody is alone."""
        fits = packing(self.sizes, self.team_count, self.min_team, self.max_team)
        return self.size >= 2 and fits is not None and all(len(shared) >= least for shared, least in self.values)


def _widened(span: Span, value: float, limit: float) -> Span | None:
    low, high, strictest = min(span[0], value), max(span[1], value), min(span[2], limit)
    return (low, high, strictest) if high - low <= strictest else None


class _Search:
    """Depth first over the candidates in their order. Looking for a full match it stops at the first; otherwise it goes
    for the largest legal one. Gives up after `steps` tries."""

    def __init__(self, units: Sequence[Unit], candidates: list[int], full: bool, steps: int) -> None:
        self.units, self.candidates, self.full, self.steps = units, candidates, full, steps
        self.best: _Selection | None = None
        self.players_from = [0] * (len(candidates) + 1)  # in the candidates from each place on
        for place in range(len(candidates) - 1, -1, -1):
            self.players_from[place] = self.players_from[place + 1] + units[candidates[place]].size

    def run(self, start: _Selection) -> _Selection | None:
        found = self._deepen(start, 0)
        return found if found or self.full else self.best

    def _deepen(self, chosen: _Selection, place: int) -> _Selection | None:
        if chosen.is_full and chosen.is_legal:
            return chosen
        if not self.full and (self.best is None or chosen.size > self.best.size) and chosen.is_legal:
            self.best = chosen
        for at in range(place, len(self.candidates)):
            reachable = chosen.size + self.players_from[at]
            needed = chosen.team_count * chosen.max_team if self.full else (self.best.size + 1 if self.best else 0)
            if reachable < needed or self.steps <= 0:
                return None
            self.steps -= 1
            index = self.candidates[at]
            more = chosen.add(index, self.units[index])
            found = self._deepen(more, at + 1) if more else None
            if found:
                return found
        return None


@lru_cache(maxsize=65_536)
def packing(sizes: tuple[int, ...], teams: int, least: int, most: int) -> tuple[int, ...] | None:
    """A team for each of `sizes` (largest first), so that every team has `least` to `most` players; None: impossible.

    Groups stay whole. Each goes to the emptiest team first."""
    if sum(sizes) < teams * least:
        return None
    if not sizes or sizes[0] == 1:  # single players fit wherever there is room
        return tuple(index % teams for index in range(len(sizes))) if len(sizes) <= teams * most else None
    filled = [0] * teams
    placed: list[int] = []
    hopeless: set[tuple[int, ...]] = set()  # how full teams were, in any order, where the rest did not fit

    def place(index: int) -> bool:
        if index == len(sizes):
            return min(filled) >= least
        state = (index, *sorted(filled))
        if state in hopeless:
            return False
        for team in sorted(range(teams), key=filled.__getitem__):
            if filled[team] + sizes[index] > most:
                break
            filled[team] += sizes[index]
            placed.append(team)
            if place(index + 1):
                return True
            placed.pop()
            filled[team] -= sizes[index]
        hopeless.add(state)
        return False

    return tuple(placed) if place(0) else None


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

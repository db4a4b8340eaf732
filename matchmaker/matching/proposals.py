"""Waiting tickets in, proposed matches out. Pure: time is an argument, and nothing is read or written.

Oldest first, each unmatched unit becomes a seed, for which the best match is searched: the index narrows the pool to
candidates, a cost of named terms orders them, and a depth-first search with backtracking tries them in that order. The
search is exhaustive for small pools and bounded for large ones, so that the time of a pass is linear in the tickets.

A match must be legal by the present rules of *every* member: the relaxed rules of a ticket that has waited for longer
never apply to one that has not. Full matches are formed first, a smaller one only when a member is about to expire or
to reach its next expansion (EDGEGAP.md 5.5), or an expansion has lowered its min_team_size, and then the
largest legal.

A pass ends when its budget is spent, and the next one continues where it ended, so that a part of the pool that is hard
to match does not block the rest.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from .budget import Budget
from .pool import ANYWHERE, Pool, PoolTicket, Unit, members, units_of, with_unmeasured
from .rules import LARGEST, MAX_SEATS, SMALLEST, Rules, Stage
from .search import Search, Selection, packing

# Seconds before an expansion, or the end of the search, from which a smaller match is formed: several passes.
NEAR_END = 2.0
# Maximum number of candidates for one match, unless twice a full match is more.
CANDIDATES = 32
# Steps that a whole pass may spend on backtracking, and how many of them one seed may spend.
BACKTRACKING, BACKTRACKING_OF_SEED = 20_000, 1_000
# The cost of writing a match, in steps.
STEPS_PER_MATCH = 1_000
# The share of the budget of a pass that is reserved for matches that are not full.
FOR_SMALLER = 0.3
# Beacons that are tried for a match, the seed's nearest first.
BEACONS = 8
# The credit for a full waiting period, relative to the maximum difference of one rule.
AGE_CREDIT = 0.5


@dataclass(frozen=True, slots=True)
class Proposal:
    """`teams`: ids of tickets; `host` is one of them. `quality`: from 0 (as far apart as the rules allow) to 1."""

    teams: tuple[tuple[str, ...], ...]
    host: str
    quality: float
    beacon: str | None
    full: bool

    @property
    def tickets(self) -> tuple[str, ...]:
        return tuple(ticket for team in self.teams for ticket in team)


@dataclass(frozen=True, slots=True)
class BackfillRequest:
    """A match in play that can take one more unit, of at most `open_seats` players. `unit`: its players, as one;
    `refused`: tickets that may not go there."""

    id: str
    unit: Unit
    open_seats: int = MAX_SEATS
    refused: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class BackfillProposal:
    backfill: str
    tickets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Proposals:
    """`resume_from`: the budget was spent; the next pass starts with the units that wait since then. `invalid`: tickets
    whose attributes the rules cannot evaluate."""

    matches: list[Proposal]
    backfills: list[BackfillProposal]
    next_pass_at: float | None  # when time alone may change something
    resume_from: float | None = None
    invalid: tuple[str, ...] = ()


def make_matches(
    rules: Rules,
    tickets: Sequence[PoolTicket],
    now: float,
    backfills: Sequence[BackfillRequest] = (),
    budget: Budget | None = None,
    start: float | None = None,
) -> Proposals:
    """One pass over the waiting tickets of a profile. Times in seconds. Seeds are taken by age, starting with the first
    that waits since `start` or later; the oldest follows the youngest."""
    budget = budget or Budget()
    units, invalid = units_of(rules, tickets, now)
    budget.spend(len(units))
    matching = _Pass(rules, Pool(rules, units), now, budget)
    filled = [found for backfill in backfills if (found := matching.fill(backfill))]
    first = next((index for index, unit in enumerate(units) if start is not None and unit.since >= start), 0)
    seeds = [*range(first, len(units)), *range(first)]
    matches, ended_at = matching.all_of(seeds, full=True, reserve=FOR_SMALLER)
    ending = [index for index in seeds if _accepts_smaller(rules, units[index], now)]
    smaller, smaller_ended_at = matching.all_of(ending, full=False)
    left = [unit for index, unit in enumerate(units) if matching.pool.waiting >> index & 1]
    stopped = ended_at if ended_at is not None else smaller_ended_at
    return Proposals(
        matches=matches + smaller,
        backfills=filled,
        next_pass_at=min((_next_change(rules, unit, now) for unit in left), default=None),
        resume_from=None if stopped is None else units[stopped].since,
        invalid=tuple(invalid),
    )


def _ends(rules: Rules, unit: Unit) -> list[float]:
    """The ages at which the rules of the unit change, and at which it expires."""
    return [stage.since for stage in rules.stages[1:]] + [rules.expiration]


def _lead(rules: Rules) -> float:
    return min(NEAR_END, rules.expiration / 4)


def _accepts_smaller(rules: Rules, unit: Unit, now: float) -> bool:
    age = now - unit.since
    return unit.stage.accepts_smaller or any(0 <= end - age <= _lead(rules) for end in _ends(rules, unit))


def _next_change(rules: Rules, unit: Unit, now: float) -> float:
    times = [unit.since + end - lead for end in _ends(rules, unit) for lead in (_lead(rules), 0.0)]
    return min(time for time in times if time > now)


class _Pass:
    """One pass over one pool."""

    def __init__(self, rules: Rules, pool: Pool, now: float, budget: Budget) -> None:
        self.rules, self.pool, self.now, self.budget = rules, pool, now, budget
        self.backtracking = BACKTRACKING

    def all_of(self, seeds: Iterable[int], *, full: bool, reserve: float = 0.0) -> tuple[list[Proposal], int | None]:
        """A match for each seed, where there is one; and the seed at which the budget was spent."""
        matches: list[Proposal] = []
        for index in seeds:
            if self.budget.is_spent(reserve):
                return matches, index
            if match := self.match(index, full):
                self.budget.spend(STEPS_PER_MATCH)
                matches.append(match)
        return matches, None

    def match(self, index: int, full: bool) -> Proposal | None:
        """The best match with the unit of this index as its seed, whose units leave the pool."""
        if not self.pool.waiting >> index & 1:
            return None
        self.budget.spend()
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
            for candidates in self._candidates(seed, beacon, around, full, wanted):
                chosen = self._search(start.at(beacon, seed), candidates, full)
                if chosen:
                    self.pool.take((index, *chosen.indices))
                    return self._made(chosen, (seed, *(self.pool.units[number] for number in chosen.indices)))
        return None

    def fill(self, backfill: BackfillRequest) -> BackfillProposal | None:
        """The closest unit for a match in play. Team sizes do not apply (EDGEGAP.md 5.6), only the open seats."""
        if self.budget.is_spent(FOR_SMALLER):
            return None
        [seed] = with_unmeasured([backfill.unit], self.pool.units)
        found = self.pool.compatible(seed) & self.pool.no_larger_than(backfill.open_seats)
        for beacon in self._beacons(seed):
            around = found if beacon is None else self.pool.near(seed, beacon, found)
            start = Selection.of(seed).at(beacon, seed)
            for index in self._ordered(seed, beacon, around, CANDIDATES):
                unit = self.pool.units[index]
                if start.allows(unit) and not backfill.refused.intersection(unit.tickets):
                    self.pool.take((index,))
                    return BackfillProposal(backfill.id, unit.tickets)
        return None

    def _beacons(self, seed: Unit) -> list[str] | list[None]:
        if self.rules.latencies is None:
            return [None]
        if not seed.is_measured:
            return [*list(seed.latencies)[: BEACONS - 1], ANYWHERE] if seed.latencies else []
        return sorted(seed.latencies, key=lambda beacon: (seed.latencies[beacon], beacon))[:BEACONS]

    def _candidates(self, seed: Unit, beacon: str | None, found: int, full: bool, wanted: int) -> Iterator[list[int]]:
        """Lists to search, the better first: the close candidates, when there are enough of them, then all.

        For a match that is not full, the units that accept the smallest matches come first: once a unit that requires
        more is included, the selection is not legal before it is that large."""
        limit = max(CANDIDATES, 2 * seed.stage.team_count * seed.stage.max_team_size)
        if not full:
            ordered = self._ordered(seed, beacon, found, limit)
            yield sorted(ordered, key=lambda index: self.pool.units[index].stage.min_team_size)
            return
        close = self.pool.close(seed, found)
        if close != found and seed.size + self.pool.players(close) >= 2 * wanted:
            yield self._ordered(seed, beacon, close, limit)
        yield self._ordered(seed, beacon, found, limit)

    def _ordered(self, seed: Unit, beacon: str | None, found: int, limit: int) -> list[int]:
        units, cost = self.pool.units, self._cost(seed, beacon)
        self.budget.spend(min(limit, found.bit_count()))
        return [index for _, index in sorted((cost(units[index]), index) for index in members(found, limit))]

    def _cost(self, seed: Unit, beacon: str | None) -> Callable[[Unit], float]:
        """The cost of another unit for this seed; lower is better. It is the sum of the differences by each rule, as
        shares of the allowed difference, less a credit for the waiting time."""
        age_weight = AGE_CREDIT / self.rules.expiration
        terms = [(number, _share(1.0, limit)) for number, limit in zip(seed.numbers, seed.limits, strict=True)]
        here = seed.latencies[beacon] if beacon is not None else 0.0
        spread_weight = _share(1.0, seed.stage.difference)
        # Prefers near relays to relays that are equally far for all.
        height_weight = _share(1.0, seed.stage.max_latency)

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
        spare = max(0, min(BACKTRACKING_OF_SEED, self.backtracking))
        budget = Budget(len(candidates) + spare + 1)
        found = Search(self.pool.units, candidates, full, budget).run(start)
        self.backtracking -= max(0, spare - max(0, budget.left))
        self.budget.spend(budget.spent)
        return found

    def _made(self, chosen: "Selection", units: Sequence[Unit]) -> Proposal:
        teams = _teams(units, chosen.team_count, chosen.min_team, chosen.max_team)
        loosest = self.rules.stages[-1]
        return Proposal(
            teams=teams,
            host=self._host(units, chosen.beacon),
            quality=_quality(units, chosen.beacon, loosest),
            beacon=chosen.beacon,
            full=chosen.size == chosen.team_count * chosen.max_team,
        )

    def _host(self, units: Sequence[Unit], beacon: str | None) -> str:
        """The ticket that has waited the longest; or the first ticket of the best connected unit."""

        def latency(unit: Unit) -> float:
            return unit.latencies[beacon] if beacon is not None else 0.0

        if self.rules.host == "best_connected":
            return min(units, key=lambda unit: (latency(unit), unit.since, unit.tickets)).tickets[0]
        return min(units, key=lambda unit: (unit.since, unit.tickets)).tickets[0]


# -- what was made ---------------------------------------------------------------------------------


def _teams(units: Sequence[Unit], count: int, min_size: int, max_size: int) -> tuple[tuple[str, ...], ...]:
    """Largest units first; units of equal size are dealt to the teams in a snake draft by their first number."""
    ordered = sorted(units, key=lambda unit: (-unit.size, -unit.numbers[0] if unit.numbers else 0.0, unit.since))
    if ordered[0].size == 1:
        places = tuple(_snake_draft(index, count) for index in range(len(ordered)))
    else:  # the search has found that there is a packing
        places = packing(tuple(unit.size for unit in ordered), count, min_size, max_size) or ()
    teams: list[list[str]] = [[] for _ in range(count)]
    for unit, team in zip(ordered, places, strict=True):
        teams[team].extend(unit.tickets)
    return tuple(tuple(team) for team in teams)


def _snake_draft(index: int, count: int) -> int:
    lap, place = divmod(index, count)
    return count - 1 - place if lap % 2 else place


def _quality(units: Sequence[Unit], beacon: str | None, loosest: Stage) -> float:
    """1 less the mean share of what the most relaxed rules allow: of each number, and of the latencies' spread and
    maximum."""
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
    return part / whole if SMALLEST <= whole <= LARGEST else 0.0

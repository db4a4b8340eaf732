"""Waiting tickets as units, and an index that finds the units that are compatible with a given one. Pure.

A unit is a ticket, or the tickets of a group, and is matched as a whole. Units are numbered by age, the oldest first. A
set of units is an integer with a bit for each, so that the intersection of sets of thousands of units is one `&`. The
index stores numbers in cells and may return units that do not quite fit, but it misses none: search.py decides.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .rules import LARGEST, MAX_VALUES, NAT_CLASSES, NAT_RULE, SMALLEST, Rules, Stage

# A lookup that spans more cells than this returns all units.
MAX_CELLS = 64
# Stands for a beacon in a pool in which no player measured any.
ANYWHERE = ""


@dataclass(frozen=True, slots=True)
class PoolTicket:
    """A waiting player. `since`: when the search began, in seconds of any clock that all tickets share."""

    id: str
    since: float
    attributes: Mapping[str, Any]
    group: str = ""


@dataclass(frozen=True, slots=True)
class Unit:
    """Tickets that are matched together. A group counts with the average of its numbers, the average latencies to the
    beacons that all its members measured, and the values that all of them share (EDGEGAP.md 5.5)."""

    tickets: tuple[str, ...]
    size: int
    since: float
    stage: Stage
    numbers: tuple[float, ...]
    limits: tuple[float, ...]  # the maximum difference of each number at this stage
    strings: tuple[str, ...]
    values: tuple[frozenset[str], ...]
    overlaps: tuple[int, ...]  # the required number of shared values at this stage
    latencies: dict[str, float]  # ms; without the beacons above the stage's max_latency
    is_measured: bool  # False: its latencies are the default of the profile


def units_of(rules: Rules, tickets: Iterable[PoolTicket], now: float) -> tuple[list[Unit], list[str]]:
    """Oldest first; and the tickets whose attributes the rules cannot evaluate. Expired tickets are left out."""
    members: dict[str, list[PoolTicket]] = defaultdict(list)
    for ticket in tickets:
        if now - ticket.since < rules.expiration:
            members[ticket.group or ticket.id].append(ticket)
    units, invalid = [], []
    for group in members.values():
        try:
            units.append(unit_of(rules, group, now))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            invalid += [ticket.id for ticket in group]
    return with_unmeasured(sorted(units, key=lambda unit: (unit.since, unit.tickets))), invalid


def with_unmeasured(units: list[Unit], others: Iterable[Unit] = ()) -> list[Unit]:
    """Gives units without measurements the default latency to every beacon that the pool or `others` measured."""
    if all(unit.is_measured for unit in units):
        return units
    known = Counter(beacon for unit in (*units, *others) if unit.is_measured for beacon in unit.latencies)
    beacons = [beacon for beacon, _ in sorted(known.items(), key=lambda item: (-item[1], item[0]))[:MAX_VALUES]]
    return [unit if unit.is_measured else _everywhere(unit, beacons) for unit in units]


def _everywhere(unit: Unit, beacons: Iterable[str]) -> Unit:
    """In the order in which the beacons are tried."""
    stage = unit.stage
    latencies = (
        dict.fromkeys((*beacons, ANYWHERE), stage.default_latency) if stage.default_latency <= stage.max_latency else {}
    )
    return replace(unit, latencies=latencies)


def unit_of(rules: Rules, group: Sequence[PoolTicket], now: float) -> Unit:
    """`group`: one or more tickets, each with all attributes of the profile."""
    group = sorted(group, key=lambda ticket: (ticket.since, ticket.id))
    stage = rules.stages[rules.stage_at(now - group[0].since)]
    rows = [ticket.attributes for ticket in group]
    return Unit(
        tickets=tuple(ticket.id for ticket in group),
        size=len(group),
        since=group[0].since,
        stage=stage,
        numbers=tuple(math.fsum(_number(name, row) for row in rows) / len(rows) for name in stage.numbers),
        limits=tuple(stage.numbers.values()),
        strings=tuple(rows[0][name] for name in rules.strings),
        values=tuple(frozenset[str].intersection(*(frozenset(row[name]) for row in rows)) for name in stage.overlaps),
        overlaps=tuple(stage.overlaps.values()),
        latencies=_latencies([row[rules.latencies] for row in rows], stage) if rules.latencies else {},
        is_measured=not rules.latencies or any(row[rules.latencies] for row in rows),
    )


def _number(name: str, row: Mapping[str, Any]) -> float:
    value: Any = NAT_CLASSES[row[name]] if name == NAT_RULE else row[name]
    return value


def _latencies(rows: list[Mapping[str, float]], stage: Stage) -> dict[str, float]:
    """The means over all rows. An empty row, of a player without measurements, counts with the default latency."""
    if len(rows) == 1:
        return {beacon: ms for beacon, ms in rows[0].items() if ms <= stage.max_latency}
    measured = [row for row in rows if row]
    if not measured:
        return {}
    unmeasured = (len(rows) - len(measured)) * stage.default_latency
    shared = set(measured[0]).intersection(*measured[1:])
    means = {beacon: (math.fsum(row[beacon] for row in measured) + unmeasured) / len(rows) for beacon in shared}
    return {beacon: ms for beacon, ms in means.items() if ms <= stage.max_latency}


class _Cells:
    """Sets of units by a number. A cell is half as wide as the strictest limit in use."""

    def __init__(self, limit: float) -> None:
        self.width = max(SMALLEST, limit / 2) if 0 < limit < LARGEST else 1.0
        self._sets: dict[int, int] = defaultdict(int)

    def add(self, value: float, bit: int) -> None:
        self._sets[math.floor(value / self.width)] |= bit

    def near(self, value: float, reach: float, all_units: int) -> int:
        """All units within `reach` of the value, and possibly some slightly beyond."""
        if reach > LARGEST:
            return all_units
        first, last = math.floor((value - reach) / self.width), math.floor((value + reach) / self.width)
        if last - first > MAX_CELLS:
            return all_units
        found = 0
        for cell in range(first, last + 1):
            found |= self._sets.get(cell, 0)
        return found


class Pool:
    """Units, and the sets that they are in. `waiting`: the set of units that are not matched yet."""

    def __init__(self, rules: Rules, units: Sequence[Unit]) -> None:
        self.units = units
        self.waiting = (1 << len(units)) - 1
        self._sizes: dict[int, int] = defaultdict(int)
        self._strings: dict[tuple[int, str], int] = defaultdict(int)
        self._values: dict[tuple[int, str], int] = defaultdict(int)
        tightest = rules.stages[0]
        self._numbers = [_Cells(limit) for limit in tightest.numbers.values()]
        self._beacons: dict[str, _Cells] = defaultdict(lambda: _Cells(tightest.difference))
        for index, unit in enumerate(units):
            self._add(unit, 1 << index)

    def _add(self, unit: Unit, bit: int) -> None:
        self._sizes[unit.size] |= bit
        for rule, text in enumerate(unit.strings):
            self._strings[rule, text] |= bit
        for rule, texts in enumerate(unit.values):
            for text in texts:
                self._values[rule, text] |= bit
        for cells, number in zip(self._numbers, unit.numbers, strict=True):
            cells.add(number, bit)
        for beacon, ms in unit.latencies.items():
            self._beacons[beacon].add(ms, bit)

    def compatible(self, unit: Unit) -> int:
        """Waiting units that are compatible with this one by strings, values and numbers."""
        found = self.waiting
        for rule, text in enumerate(unit.strings):
            found &= self._strings.get((rule, text), 0)
        for rule, texts in enumerate(unit.values):
            sharing = 0
            for text in texts:
                sharing |= self._values.get((rule, text), 0)
            found &= sharing
        for cells, number, limit in zip(self._numbers, unit.numbers, unit.limits, strict=True):
            found &= cells.near(number, limit, found)
        return found

    def close(self, unit: Unit, found: int) -> int:
        """The units of `found` whose first number differs by at most a quarter of the allowed difference."""
        if not self._numbers:
            return found
        return found & self._numbers[0].near(unit.numbers[0], unit.limits[0] / 4, found)

    def near(self, unit: Unit, beacon: str, found: int) -> int:
        """The units of `found` with a similar latency to the beacon."""
        reach = unit.stage.difference
        return found & self._beacons[beacon].near(unit.latencies[beacon], reach, found)

    def no_larger_than(self, size: int) -> int:
        """Units of at most so many players."""
        found = 0
        for each, units in self._sizes.items():
            found |= units if each <= size else 0
        return found

    def players(self, found: int) -> int:
        return sum(size * (found & units).bit_count() for size, units in self._sizes.items())

    def take(self, indices: Iterable[int]) -> None:
        """Removes matched units."""
        for index in indices:
            self.waiting &= ~(1 << index)


def members(found: int, limit: int) -> Iterator[int]:
    """Indices in a set, the oldest first, up to `limit`."""
    while found and limit:
        bit = found & -found
        yield bit.bit_length() - 1
        found ^= bit
        limit -= 1

"""`make bench-matchmaking`: simulated players for one profile or for two side by side, and the speed of a pass.

    make bench-matchmaking ARGS="examples/profiles/ranked.json examples/profiles/quick.json --rate 120 --minutes 20"
    make bench-matchmaking ARGS="--speed"

The clock is virtual and the passes are real: wait times and quality are those of the simulated players, and the
duration of a pass is measured on this machine. Both profiles get the same players from the same seed.
"""

import argparse
import json
import math
import random
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from matchmaker.matching.pool import PoolTicket
from matchmaker.matching.profile_parser import parse
from matchmaker.matching.proposals import make_matches
from matchmaker.matching.rules import Rules

ROOT = Path(__file__).parents[1]
TICK = 0.25  # virtual seconds between checks for changes
BARS = " ▁▂▃▄▅▆▇█"

# The locations of relays; the homes of players with their share of all players: latitude, longitude.
RELAYS = {
    "Frankfurt": (50.1, 8.7), "Ashburn": (39.0, -77.5), "San Jose": (37.3, -121.9),
    "Sao Paulo": (-23.5, -46.6), "Singapore": (1.35, 103.8), "Tokyo": (35.7, 139.7),
}  # fmt: skip
HOMES = {
    (52.5, 13.4): 18, (48.9, 2.35): 14, (51.5, -0.1): 12, (40.7, -74.0): 14, (34.1, -118.2): 10,
    (41.9, -87.6): 8, (-23.5, -46.6): 8, (14.6, 121.0): 6, (35.7, 139.7): 6, (1.35, 103.8): 4,
}  # fmt: skip

console = Console(width=110)


# -- players ---------------------------------------------------------------------------------------


def kilometres(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Along the great circle (haversine)."""
    (lat1, lon1), (lat2, lon2) = ((math.radians(x), math.radians(y)) for x, y in (a, b))
    h = math.sin((lat2 - lat1) / 2) ** 2 + math.cos(lat1) * math.cos(lat2) * math.sin((lon2 - lon1) / 2) ** 2
    return 2 * 6371 * math.asin(math.sqrt(h))


def latencies(home: tuple[float, float], draw: random.Random) -> dict[str, float]:
    """Light in glass there and back is 1 ms for 100 km, cables run about 1.6 times the great circle, and the line at
    home adds 5 to 40 ms."""
    access = draw.lognormvariate(2.5, 0.5)
    return {
        name: round(access + kilometres(home, place) * 1.6 / 100 + draw.uniform(0, 4), 1)
        for name, place in RELAYS.items()
    }


def attributes_for(profile: Rules, draw: random.Random, home: tuple[float, float], elo: float) -> dict[str, Any]:
    makers = {
        "latencies": lambda: latencies(home, draw),
        "number_difference": lambda: round(elo + draw.gauss(0, 40)),
        "string_equality": lambda: draw.choices(["duel", "classic"], [3, 1])[0],
        "intersection": lambda: draw.sample(["dust", "harbour", "castle", "forest"], draw.randint(1, 3)),
    }
    return {name: makers[kind]() for name, kind in sorted(profile.types.items())}


def party(profile: Rules, draw: random.Random, since: float, number: int) -> list[PoolTicket]:
    """One player or, with a probability of 1 in 5, a group with one home, similar skill and the same preferences."""
    size = min(profile.stages[0].max_team_size, draw.choices([1, 2, 3], [80, 15, 5])[0])
    home = draw.choices(list(HOMES), list(HOMES.values()))[0]
    elo = draw.gauss(1500, 300)
    rows = [attributes_for(profile, draw, home, elo) for _ in range(size)]
    shared = {name for name, kind in profile.types.items() if kind in ("string_equality", "intersection")}
    return [
        PoolTicket(
            f"{number:07}{index}", since, row | {name: rows[0][name] for name in shared}, f"g{number}" * (size > 1)
        )
        for index, row in enumerate(rows)
    ]


def arrivals(profile: Rules, curve: str, rate: float, minutes: float, seed: int) -> Iterator[list[PoolTicket]]:
    """Parties in the order of their arrival, `rate` of them a minute on average, by a Poisson process."""
    draw = random.Random(seed)
    now, number, seconds = 0.0, 0, minutes * 60
    while True:
        share = now / seconds
        factor = {
            "steady": 1.0,
            "evening": 0.25 + 1.5 * math.sin(math.pi * share) ** 2,
            "rush": 3.0 if share < 0.2 else 0.5,
        }
        now += draw.expovariate(rate / 60 * factor[curve])
        if now >= seconds:
            return
        yield party(profile, draw, now, number)
        number += 1


# -- the simulation --------------------------------------------------------------------------------


@dataclass
class Outcome:
    name: str
    waits: list[float] = field(default_factory=list)
    qualities: list[float] = field(default_factory=list)
    spreads: dict[str, list[float]] = field(default_factory=dict)
    passes: list[float] = field(default_factory=list)
    full: int = 0
    expired: int = 0
    largest_pool: int = 0


def simulate(name: str, profile: Rules, parties: Iterator[list[PoolTicket]]) -> Outcome:
    outcome = Outcome(name)
    pool: dict[str, PoolTicket] = {}
    coming = next(parties, None)
    now, look_again = 0.0, math.inf
    while coming or pool:
        now += TICK
        changed = now >= look_again
        while coming and coming[0].since <= now:
            pool |= {ticket.id: ticket for ticket in coming}
            coming, changed = next(parties, None), True
        for ticket in [ticket for ticket in pool.values() if now - ticket.since >= profile.expiration]:
            del pool[ticket.id]
            outcome.expired += 1
        if changed and pool:
            outcome.largest_pool = max(outcome.largest_pool, len(pool))
            look_again = one_pass(profile, pool, now, outcome)
    return outcome


def one_pass(profile: Rules, pool: dict[str, PoolTicket], now: float, outcome: Outcome) -> float:
    started = time.perf_counter()
    result = make_matches(profile, list(pool.values()), now)
    outcome.passes.append(time.perf_counter() - started)
    for match in result.matches:
        tickets = [pool.pop(ticket) for ticket in match.tickets]
        outcome.waits += [now - ticket.since for ticket in tickets]
        outcome.qualities.append(match.quality)
        outcome.full += match.full
        note_spreads(profile, tickets, match.beacon, outcome)
    return result.next_pass_at or math.inf


def note_spreads(profile: Rules, tickets: list[PoolTicket], beacon: str | None, outcome: Outcome) -> None:
    for name in profile.stages[0].numbers:
        values = [ticket.attributes[name] for ticket in tickets]
        outcome.spreads.setdefault(f"{name} apart", []).append(max(values) - min(values))
    if profile.latencies and beacon:
        values = [ticket.attributes[profile.latencies].get(beacon, 0.0) for ticket in tickets]
        outcome.spreads.setdefault("ms apart", []).append(max(values) - min(values))
        outcome.spreads.setdefault("ms, the farthest", []).append(max(values))


# -- what is shown ---------------------------------------------------------------------------------


def quantiles(values: list[float], form: str) -> str:
    if len(values) < 2:
        return "-"
    cuts = statistics.quantiles(values, n=100)
    return " / ".join(format(cuts[p - 1], form) for p in (50, 90, 99))


def histogram(values: list[float], low: float, high: float, bins: int = 40) -> str:
    counts = [0] * bins
    for value in values:
        counts[min(bins - 1, max(0, int((value - low) / (high - low) * bins)))] += 1
    most = max(counts) or 1
    return "".join(BARS[math.ceil(count / most * (len(BARS) - 1))] for count in counts)


def show(outcomes: list[Outcome], expiration: float) -> None:
    table = Table(title="Medians / 90th / 99th percentiles")
    table.add_column("")
    for outcome in outcomes:
        table.add_column(outcome.name, min_width=42)

    def row(name: str, *values: str) -> None:
        table.add_row(name, *values)

    row("players matched", *(str(len(o.waits)) for o in outcomes))
    row("matches, full", *(f"{len(o.qualities)}, {100 * o.full / max(1, len(o.qualities)):.0f} %" for o in outcomes))
    row("expired", *(f"{o.expired} ({100 * o.expired / max(1, o.expired + len(o.waits)):.1f} %)" for o in outcomes))
    row("wait, s", *(quantiles(o.waits, ".1f") for o in outcomes))
    row(f"  0 to {expiration:.0f} s", *(histogram(o.waits, 0, expiration) for o in outcomes))
    row("quality", *(quantiles(o.qualities, ".2f") for o in outcomes))
    row("  0 to 1", *(histogram(o.qualities, 0, 1) for o in outcomes))
    for name in dict.fromkeys(name for o in outcomes for name in o.spreads):
        row(name, *(quantiles(o.spreads.get(name, []), ".0f") for o in outcomes))
    row("largest pool", *(str(o.largest_pool) for o in outcomes))
    row("pass, ms", *(quantiles([1000 * s for s in o.passes], ".1f") for o in outcomes))
    console.print(table)


# -- speed -----------------------------------------------------------------------------------------


def speed(sizes: list[int], repeats: int, seed: int) -> None:
    """One pass over this many waiting tickets, split over three profiles, as after an outage."""
    table = Table(title=f"One pass over three profiles (ranked, quick, arena), median of {repeats}")
    for name in ("tickets", "pass, s", "matched", "second pass over the rest, s"):
        table.add_column(name, justify="right")
    profiles = [load(ROOT / "examples" / "profiles" / f"{name}.json") for name in ("ranked", "quick", "arena")]
    for size in sizes:
        runs = [speed_once(profiles, size, seed + number) for number in range(repeats)]
        first, second = (statistics.median(run[which] for run in runs) for which in (0, 2))
        table.add_row(f"{size:,}", f"{first:.2f}", f"{100 * runs[0][1] / size:.0f} %", f"{second:.2f}")
    console.print(table)


def speed_once(profiles: list[Rules], size: int, seed: int) -> tuple[float, int, float]:
    draw = random.Random(seed)
    took = again = 0.0
    matched = 0
    for profile in profiles:
        tickets: list[PoolTicket] = []
        while len(tickets) < size // len(profiles):
            tickets += party(profile, draw, draw.uniform(-profile.expiration * 0.9, 0), len(tickets))
        started = time.perf_counter()
        result = make_matches(profile, tickets, 0.0)
        took += time.perf_counter() - started
        taken = {ticket for match in result.matches for ticket in match.tickets}
        matched += len(taken)
        left = [ticket for ticket in tickets if ticket.id not in taken]
        started = time.perf_counter()
        make_matches(profile, left, 0.0)
        again += time.perf_counter() - started
    return took, matched, again


def load(path: Path) -> Rules:
    return parse(json.loads(path.read_text()))


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-matchmaking ARGS=...", description=__doc__)
    parser.add_argument("profiles", nargs="*", type=Path, help="one file, or two to compare")
    parser.add_argument("--rate", type=float, default=60, help="parties a minute (%(default)s)")
    parser.add_argument("--minutes", type=float, default=15, help="simulated (%(default)s)")
    parser.add_argument("--curve", choices=("steady", "evening", "rush"), default="evening", help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--speed", action="store_true", help="only measure passes over large pools")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000], help="for --speed")
    parser.add_argument("--repeats", type=int, default=5, help="for --speed (%(default)s)")
    options = parser.parse_args()
    if options.speed:
        speed(options.sizes, options.repeats, options.seed)
        return
    files = options.profiles or [ROOT / "examples" / "profiles" / f"{name}.json" for name in ("ranked", "quick")]
    profiles = {path.stem: load(path) for path in files}
    console.print(f"{options.rate:g} parties a minute, {options.curve}, for {options.minutes:g} minutes")
    outcomes = [
        simulate(name, profile, arrivals(profile, options.curve, options.rate, options.minutes, options.seed))
        for name, profile in profiles.items()
    ]
    show(outcomes, max(profile.expiration for profile in profiles.values()))


if __name__ == "__main__":
    main()

"""How good placement is: regret to the best choice with perfect knowledge, on any latency matrix, against other rules.

    make bench-placement                            on a synthetic internet
    make bench-placement ARGS="--data FOLDER"       on matrices in files, one a slice of time

Relays and players are drawn with a seed. Telemetry comes from the slices up to one moment, the choice is judged on
later ones. It drives the code that places sessions: `fit_coordinates`, `fit_distance`, `estimate_legs`, `rank`.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from relaymgr.sessions.placement.filters import NodeLocation
from relaymgr.sessions.placement.ranking import Group, NodeSnapshot, path_ms, rank
from relaymgr.telemetry.estimation.beacons import beacon_order
from relaymgr.telemetry.estimation.coordinates import fit_coordinates
from relaymgr.telemetry.estimation.estimates import LatencyModel, Legs, Player, Sample, Site, estimate_legs
from relaymgr.telemetry.estimation.geography import Floats, distance_km, fit_distance
from relaymgr.telemetry.estimation.prefixes import average_after

from .latencies import Latencies, load, synthetic
from .placement_picture import draw
from .placement_rules import RULES, Vivaldi

SIZES = (2, 4, 8, 16)
# How many relays each player measured, and whether those that the manager lists first for it.
TELEMETRY: dict[str, tuple[int | None, bool]] = {
    "full": (None, False),
    "5 probes": (5, True),
    "3 probes": (3, True),
    "3 probes at random": (3, False),
    "none": (0, False),
}
TOPOLOGIES = ("host", "mesh")
PAST_PROBES = 5  # what players before these measured, each
OURS, VIVALDI = "causeway", "vivaldi + our cost"
HINDSIGHT = "hindsight"  # knows what every leg is like over all slices, the judged ones among them
STEP = "all but a step"  # knows the judged legs, each to one step of what the data are rounded to

Key = tuple[str, str, int, str, str]  # telemetry, topology, size, how the group was drawn, rule
Results = dict[Key, list[tuple[float, float]]]  # regret 0.., worst player's ms


@dataclass(frozen=True)
class World:
    """One draw: relays, players of the past and of now. `before`, `after` and `usual`: (players, relays) ms; `step`:
    what they are rounded to."""

    sites: list[Site]
    nodes: list[NodeSnapshot]
    knowledge: LatencyModel
    vivaldi: Vivaldi
    before: Floats
    after: Floats
    usual: Floats
    step: float
    km: Floats | None
    players: Floats | None  # degrees


def worlds(latencies: Latencies, draws: int, window: int, seed: int, accuracy_km: float) -> Iterator[World]:
    """`window`: how many slices make one look. Telemetry is what the manager remembers after a sample of each before
    the moment. A leg is judged by its least over those after: what is added now and then is not the path (Paxson,
    "End-to-End Internet Packet Dynamics", 1997)."""
    times = len(latencies.slices)
    for draw_number in range(draws):
        random = np.random.default_rng([seed, draw_number])
        last = int(random.integers(window, times - window + 1)) if times > 2 * window else window
        with np.errstate(all="ignore"):
            before = _remembered(latencies.slices[last - window : last])
            after = np.nanmin(latencies.slices[max(last, times - window) :][:window], axis=0)
            usual = np.nanquantile(latencies.slices, 0.1 if window > 1 else 0.5, axis=0)
        yield _world(latencies, before, after, usual, random, accuracy_km)


def _remembered(slices: Floats) -> Floats:
    """(hosts, hosts) ms after one sample of each leg a slice. NaN where there was none."""
    memory = np.full(slices.shape[1:], np.nan)
    for leg in np.ndindex(memory.shape):
        samples = slices[:, *leg]
        known = None
        for ms in samples[np.isfinite(samples)].tolist():
            known = average_after(known, Sample(ms))
        memory[leg] = known.ms if known else np.nan
    return memory


def _world(
    latencies: Latencies, before: Floats, after: Floats, usual: Floats, random: np.random.Generator, accuracy_km: float
) -> World:
    pool = latencies.relays or latencies.hosts
    relays = random.permutation(pool)[: min(40, pool * 2 // 5) if latencies.relays is None else 40]
    others = random.permutation(np.setdiff1d(np.arange(latencies.hosts), relays))
    if latencies.relays is not None:
        others = others[others >= latencies.relays]
    past, players = others[: len(others) // 3], others[len(others) // 3 :]
    among = before[np.ix_(relays, relays)]
    rows = before[np.ix_(past, relays)].copy()
    for row in rows:
        row[random.permutation(len(relays))[PAST_PROBES:]] = np.nan
    where = latencies.where if latencies.where is not None else np.zeros((latencies.hosts, 2))
    names = tuple(f"relay-{index}" for index in relays)
    sites = [Site(name, name, *where[index]) for name, index in zip(names, relays, strict=True)]
    knowledge = LatencyModel(fit_coordinates(names, np.vstack([among, rows])))
    km = seen = None
    if latencies.where is not None:
        # A geolocation database is wrong by so much.
        seen = where[players] + random.normal(0, accuracy_km / 111, (len(players), 2))
        km = distance_km(seen[:, :1], seen[:, 1:], where[relays, 0], where[relays, 1])
        past_km = distance_km(where[past, :1], where[past, 1:], where[relays, 0], where[relays, 1])
        knowledge = LatencyModel(knowledge.coordinates, fit_distance(past_km.ravel(), rows.ravel()))
    return World(
        sites,
        [_snapshot(site) for site in sites],
        knowledge,
        Vivaldi(among),
        before[np.ix_(players, relays)],
        after[np.ix_(players, relays)],
        usual[np.ix_(players, relays)],
        _step(after),
        km,
        seen,
    )


def _step(ms: Floats) -> float:
    """0 where it is below a millisecond."""
    steps = np.diff(np.unique(ms[np.isfinite(ms)]))
    return float(steps.min()) if len(steps) and steps.min() >= 1 else 0.0


def _snapshot(site: Site) -> NodeSnapshot:
    location = NodeLocation(site.location, site.location, "", "", "", "", (), site.latitude, site.longitude)
    return NodeSnapshot(0, site.node, location, "ready", False, 1000, 0.0, 1.0)


def measure(latencies: Latencies, draws: int, groups: int, window: int, seed: int, accuracy_km: float) -> Results:
    results: Results = defaultdict(list)
    for number, world in enumerate(worlds(latencies, draws, window, seed, accuracy_km)):
        random = np.random.default_rng([seed, number, 1])
        for telemetry, (probes, is_guided) in TELEMETRY.items():
            measured = _guided(world, probes or 0) if is_guided else _probed(world.before, probes, random)
            legs = _estimate(world, measured)
            by_vivaldi = world.vivaldi.estimate(measured)
            for size in SIZES:
                for kind in ("spread out", "local"):
                    for _ in range(groups):
                        members = _members(world.after, size, kind, random)
                        _judge(results, world, members, measured, legs, by_vivaldi, (telemetry, kind), random)
    return results


def _probed(before: Floats, probes: int | None, random: np.random.Generator) -> Floats:
    """What each player measured: all relays, or some drawn at random for each."""
    measured = before.copy()
    if probes is not None:
        for row in measured:
            row[random.permutation(len(row))[probes:]] = np.nan
    return measured


def _guided(world: World, probes: int) -> Floats:
    """What each player measured of the beacons that the manager lists first."""
    measured = np.full_like(world.before, np.nan)
    for row, player in enumerate(_players(world, measured)):
        asked = beacon_order(player, world.sites, world.knowledge, probes)
        measured[row, asked] = world.before[row, asked]
    return measured


def _estimate(world: World, measured: Floats) -> Legs:
    return estimate_legs(_players(world, measured), world.sites, world.knowledge)


def _players(world: World, measured: Floats) -> list[Player]:
    where = [(None, None)] * len(measured) if world.players is None else world.players.tolist()
    return [
        Player(
            {world.sites[index].node: Sample(float(row[index])) for index in np.flatnonzero(np.isfinite(row))}, {}, *at
        )
        for row, at in zip(measured, where, strict=True)
    ]


def _members(after: Floats, size: int, kind: str, random: np.random.Generator) -> list[int]:
    """Spread out: any players. Local: one and those whose legs are most like its own."""
    order = random.permutation(len(after))
    if kind == "spread out":
        return [int(player) for player in order[:size]]
    unlike = np.nanmedian(np.abs(after - after[order[0]]), axis=1)
    near = np.argsort(unlike, kind="stable")[: 2 * size]
    return [int(order[0]), *(int(player) for player in random.permutation(near[near != order[0]])[: size - 1])]


def _judge(
    results: Results,
    world: World,
    members: list[int],
    measured: Floats,
    legs: Legs,
    by_vivaldi: Floats,
    about: tuple[str, str],
    random: np.random.Generator,
) -> None:
    truth = world.after[members]
    km = None if world.km is None else world.km[members]
    ours = legs.of_players(members)
    others = {name: rule(measured[members], km, random) for name, rule in RULES.items()}
    for topology in TOPOLOGIES:
        cost = path_ms(truth, topology, "worst")
        if not np.isfinite(cost).any():
            continue
        group = Group(len(members), topology)
        first = rank(group, world.nodes, ours).order[0]
        vivaldi = int(np.argmin(path_ms(by_vivaldi[members], topology, "worst")))
        usual = path_ms(world.usual[members], topology, "worst")
        hindsight = int(np.nanargmin(usual)) if np.isfinite(usual).any() else None
        rounded = path_ms(
            truth + world.step * np.random.default_rng(members).integers(-1, 2, truth.shape), topology, "worst"
        )
        step = int(np.nanargmin(rounded)) if world.step else None
        for rule, choice in {OURS: first, VIVALDI: vivaldi, HINDSIGHT: hindsight, STEP: step, **others}.items():
            if choice is not None and np.isfinite(cost[choice]):
                regret = float(cost[choice] / np.nanmin(cost) - 1)
                results[about[0], topology, len(members), about[1], rule].append(
                    (regret, float(truth[:, choice].max()))
                )


def table(results: Results, telemetry: str, topology: str) -> None:
    columns = [(size, kind) for kind in ("spread out", "local") for size in SIZES]
    print(f"\ntelemetry {telemetry}, topology {topology}: regret to the best, median / p95 in %")
    print(f"{'':20}" + "".join(f"{f'{size} {kind}':>15}" for size, kind in columns) + f"{'worst player':>16}")
    for rule in [OURS, VIVALDI, HINDSIGHT, STEP, *RULES]:
        if not any(key[4] == rule for key in results):
            continue
        cells, worst = [], []
        for size, kind in columns:
            found = results.get((telemetry, topology, size, kind, rule))
            cells.append(_cell([regret for regret, _ in found]) if found else "-")
            worst += [ms for _, ms in found or []]
        ms = f"{np.median(worst):.0f} ms" if worst else "-"
        print(f"{rule:20}" + "".join(f"{cell:>15}" for cell in cells) + f"{ms:>16}")


def _cell(regrets: list[float]) -> str:
    return f"{100 * np.median(regrets):.1f} / {100 * np.percentile(regrets, 95):.0f}"


def timing() -> None:
    """Estimates and ranking together, of players who measured five nodes each, on one core."""
    latencies = synthetic(1, relays=1000, players=1100, times=1).slices[0]
    random = np.random.default_rng(1)
    names = tuple(f"node-{index}" for index in range(1000))
    sites = [Site(name, name, float(index % 120 - 60), float(index % 360 - 180)) for index, name in enumerate(names)]
    nodes = [_snapshot(site) for site in sites]
    knowledge = LatencyModel(fit_coordinates(names, latencies[1000:, :1000]))
    print("\nprocessor time to place over 1,000 nodes, estimates included, median of 20:")
    for size in (8, 100):
        measured = _probed(latencies[1000 : 1000 + size, :1000], 5, random)
        players = [
            Player({names[i]: Sample(float(row[i])) for i in np.flatnonzero(np.isfinite(row))}) for row in measured
        ]
        took = []
        for _ in range(20):
            started = time.process_time()
            rank(Group(size), nodes, estimate_legs(players, sites, knowledge))
            took.append(time.process_time() - started)
        print(f"  {size:3} players: {1000 * float(np.median(took)):.1f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-placement", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="a folder of matrices in seconds; without: a synthetic internet")
    parser.add_argument("--window", type=int, default=1, help="slices that make one look at the network")
    parser.add_argument("--draws", type=int, default=12, help="of relays and players")
    parser.add_argument("--groups", type=int, default=25, help="of each size and kind, for each draw")
    parser.add_argument("--accuracy", type=float, default=100.0, help="km by which geolocation is wrong")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--picture", type=Path, default=Path("var/bench-placement.svg"))
    options = parser.parse_args()
    latencies = load(options.data) if options.data else synthetic(options.seed)
    if len(latencies.slices) < 2 * options.window:
        raise SystemExit(
            f"--window {options.window} needs {2 * options.window} slices, there are {len(latencies.slices)}"
        )
    print(f"{latencies.name}: {latencies.hosts} hosts, {len(latencies.slices)} slices, window {options.window}")
    results = measure(latencies, options.draws, options.groups, options.window, options.seed, options.accuracy)
    for telemetry in TELEMETRY:
        for topology in TOPOLOGIES:
            table(results, telemetry, topology)
    options.picture.parent.mkdir(parents=True, exist_ok=True)
    options.picture.write_text(draw(results, [OURS, VIVALDI, HINDSIGHT, *RULES]))
    print(f"\npicture: {options.picture}")
    timing()


if __name__ == "__main__":
    main()

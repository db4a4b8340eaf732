"""Updates the typical legs of address prefixes, and the latency model fitted to all samples."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from relaymgr.nodes.health.incidents import Incident, distrusted_ids, incidents_record
from relaymgr.nodes.locations.geoip import locate
from relaymgr.nodes.selectors import nodes_with_locations
from relaymgr.nodes.states import IncidentKind
from relaymgr.telemetry.estimation.estimates import MAX_AGE_S, LatencyModel, Sample, Site
from relaymgr.telemetry.estimation.latency_model import Row, Where, fit_model, model_to_json
from relaymgr.telemetry.estimation.prefixes import (
    Players,
    first_address,
    median_of_players,
    players_after,
    wide_network,
)
from relaymgr.telemetry.estimation.trust import outliers
from relaymgr.telemetry.models import PeerLegs, PrefixLeg, StoredLatencyModel
from web.database.bulk_sql import rows_upsert

if TYPE_CHECKING:
    from relaymgr.nodes.models import RelayNode

MAX_ROWS = 4_000  # newest prefixes that the model is fitted to: a second of CPU time at a thousand nodes
MAX_OF_NETWORK = 256  # of them in one IPv6 /32, as many as an IPv4 /16 has: one network must not outweigh all others
BATCH = 500  # prefixes per query

# (prefix, a player's hash, the node's id, a sample)
PrefixSample = tuple[str, str, int, Sample]
FIGURES = ("prefix", "node", "at", "ms", "jitter_ms", "loss", "players", "by_player")


def prefix_legs_update(samples: Iterable[PrefixSample], *, at: datetime) -> int:
    """Updates the legs of prefixes with new samples; returns how many. Only one process may run it at a time."""
    by_leg: dict[tuple[str, int], list[tuple[str, Sample]]] = defaultdict(list)
    for prefix, player, node_id, sample in samples:
        if prefix and sample.is_possible:
            by_leg[prefix, node_id].append((player, sample))
    known = _known({prefix for prefix, _ in by_leg})
    rows = []
    for (prefix, node_id), news in by_leg.items():
        players = known.get((prefix, node_id), {})
        for player, sample in news:
            players = players_after(players, player, sample, at.timestamp())
        typical = median_of_players(players)
        rows.append(
            (prefix, node_id, at, typical.ms, typical.jitter_ms, typical.loss, len(players), players),
        )
    rows_upsert(PrefixLeg, FIGURES, rows, unique=("prefix", "node"))
    return len(rows)


def _known(prefixes: set[str]) -> dict[tuple[str, int], Players]:
    found = {}
    wanted = sorted(prefixes)
    for start in range(0, len(wanted), BATCH):
        legs = PrefixLeg.objects.filter(prefix__in=wanted[start : start + BATCH]).order_by()
        for prefix, node, players in legs.values_list("prefix", "node", "by_player"):
            found[prefix, node] = players
    return found


def prefix_legs_prune() -> int:
    """Deletes the oldest: those that are too old for any estimate, and those beyond MAX_PREFIX_LEGS; returns how
    many."""
    gone = PrefixLeg.objects.filter(at__lt=timezone.now() - timedelta(days=settings.PREFIX_RETENTION_DAYS)).delete()[0]
    newest = PrefixLeg.objects.order_by("-at")
    if (limit := newest.values_list("at", flat=True)[settings.MAX_PREFIX_LEGS :].first()) is not None:
        gone += PrefixLeg.objects.filter(at__lte=limit).delete()[0]
    return gone


def latency_model_fit() -> LatencyModel:
    """Fits the model to all samples and stores it as the one row of StoredLatencyModel."""
    nodes = nodes_with_locations()
    sites = [Site(node.name, node.location.slug, node.location.latitude, node.location.longitude) for node in nodes]
    now = timezone.now()
    prefixes, peers = _prefix_rows(now), _peer_rows(now)
    distrusted_names = outliers_record(nodes, prefixes, peers)
    rows = [({name: ms for name, ms in row.items() if name not in distrusted_names}, where) for row, where in prefixes]
    believed = [row for node, row in peers.items() if node not in distrusted_names]
    rows += [({name: ms for name, ms in row.items() if name not in distrusted_names}, None) for row in believed]
    model = fit_model(sites, rows)
    with transaction.atomic():
        StoredLatencyModel.objects.all().delete()
        StoredLatencyModel.objects.create(at=now, document=model_to_json(model))
    return model


def _prefix_rows(now: datetime) -> list[tuple[Row, Where]]:
    """One row for each of the newest prefixes, with its location if GeoIP has one. One player per prefix is enough
    here, unlike in `prefix_histories`, because an outlying row has almost no weight in the fit."""
    legs = PrefixLeg.objects.filter(at__gt=now - timedelta(seconds=MAX_AGE_S)).order_by("-at")
    rows: dict[str, dict[str, float]] = {}
    networks: Counter[str] = Counter()
    for prefix, node, ms in legs.values_list("prefix", "node__name", "ms")[: MAX_ROWS * 8].iterator():
        if prefix not in rows:
            network = wide_network(prefix)
            networks[network] += 1
            if len(rows) >= MAX_ROWS or networks[network] > MAX_OF_NETWORK:
                continue
        rows.setdefault(prefix, {})[node] = ms
    located = ((row, locate(first_address(prefix))) for prefix, row in rows.items())
    return [(row, (found.latitude, found.longitude) if found else None) for row, found in located]


def _peer_rows(now: datetime) -> dict[str, Row]:
    """What each node measured to the others. Nodes have no access line, so these rows do not enter the fit of
    distance."""
    fresh = PeerLegs.objects.filter(at__gt=now - timedelta(seconds=MAX_AGE_S))
    reported = fresh.values_list("node__name", "legs")
    return {node: {name: leg[0] for name, leg in legs.items()} for node, legs in reported}


def outliers_record(
    nodes: "Sequence[RelayNode]", prefixes: Sequence[tuple[Row, Where]], peers: Mapping[str, Row]
) -> set[str]:
    """Records incidents of nodes whose measurements cannot be true, deletes their legs of prefixes, and returns the
    names of all distrusted nodes."""
    ids = {node.name: node.pk for node in nodes}
    where = {node.name: (node.location.latitude, node.location.longitude) for node in nodes}
    found = outliers(prefixes, peers, where)
    incidents_record(IncidentKind.OUTLIER, [Incident(ids[name], why) for name, why in found.items() if name in ids])
    distrusted = distrusted_ids()
    PrefixLeg.objects.filter(node__in=distrusted).delete()
    return {name for name, pk in ids.items() if pk in distrusted}

"""Writes: what legs say of their address prefixes, and what all samples together teach."""

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
from relaymgr.telemetry.estimation.prefixes import Players, first_address, of_players, players_remember, wide_network
from relaymgr.telemetry.estimation.trust import outliers
from relaymgr.telemetry.models import PeerLegs, PrefixLeg, StoredLatencyModel
from web.database.bulk_sql import rows_upsert

if TYPE_CHECKING:
    from relaymgr.nodes.models import RelayNode

MAX_ROWS = 4_000  # prefixes that are learnt from: the newest; the fit is a second's work at a thousand nodes
MAX_OF_NETWORK = 256  # of them in one IPv6 /32, as many as an IPv4 /16 has: one network must not outvote all others
BATCH = 500  # prefixes that are looked up at once

# (prefix, a player's hash, the node's id, a sample)
PrefixSample = tuple[str, str, int, Sample]
FIGURES = ("prefix", "node", "at", "ms", "jitter_ms", "loss", "players", "by_player")


def prefixes_remember(samples: Iterable[PrefixSample], *, at: datetime) -> int:
    """Each prefix and node takes in its samples; how many rows that were. Call it from one place at a time."""
    by_leg: dict[tuple[str, int], list[tuple[str, Sample]]] = defaultdict(list)
    for prefix, player, node_id, sample in samples:
        if prefix and sample.is_possible:
            by_leg[prefix, node_id].append((player, sample))
    known = _known({prefix for prefix, _ in by_leg})
    rows = []
    for (prefix, node_id), news in by_leg.items():
        players = known.get((prefix, node_id), {})
        for player, sample in news:
            players = players_remember(players, player, sample, at.timestamp())
        typical = of_players(players)
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


def prefixes_prune() -> int:
    """Forgets the oldest: what no estimate would use any more, and what is over MAX_PREFIX_LEGS; how many."""
    gone = PrefixLeg.objects.filter(at__lt=timezone.now() - timedelta(days=settings.PREFIX_RETENTION_DAYS)).delete()[0]
    newest = PrefixLeg.objects.order_by("-at")
    if (limit := newest.values_list("at", flat=True)[settings.MAX_PREFIX_LEGS :].first()) is not None:
        gone += PrefixLeg.objects.filter(at__lte=limit).delete()[0]
    return gone


def latency_model_fit() -> LatencyModel:
    """From all samples there are, kept as the one row of StoredLatencyModel."""
    nodes = nodes_with_locations()
    sites = [Site(node.name, node.location.slug, node.location.latitude, node.location.longitude) for node in nodes]
    now = timezone.now()
    prefixes, peers = _prefix_rows(now), _peer_rows(now)
    doubted = outliers_doubt(nodes, prefixes, peers)
    rows = [({name: ms for name, ms in row.items() if name not in doubted}, where) for row, where in prefixes]
    believed = [row for node, row in peers.items() if node not in doubted]
    rows += [({name: ms for name, ms in row.items() if name not in doubted}, None) for row in believed]
    model = fit_model(sites, rows)
    with transaction.atomic():
        StoredLatencyModel.objects.all().delete()
        StoredLatencyModel.objects.create(at=now, document=model_to_json(model))
    return model


def _prefix_rows(now: datetime) -> list[tuple[Row, Where]]:
    """One row for each prefix that reported last; where it is, if a GeoIP file says so. Of one player each is enough
    here, unlike in `prefix_histories`: a row far from what all others say weighs next to nothing."""
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
    """What each node measured to the others. They have no access line, so they say nothing of distance for players."""
    fresh = PeerLegs.objects.filter(at__gt=now - timedelta(seconds=MAX_AGE_S))
    told = fresh.values_list("node__name", "legs")
    return {node: {name: leg[0] for name, leg in legs.items()} for node, legs in told}


def outliers_doubt(
    nodes: "Sequence[RelayNode]", prefixes: Sequence[tuple[Row, Where]], peers: Mapping[str, Row]
) -> set[str]:
    """Records the nodes whose measurements cannot be true, forgets what they claimed of players, and gives the names of
    all that are not believed."""
    ids = {node.name: node.pk for node in nodes}
    where = {node.name: (node.location.latitude, node.location.longitude) for node in nodes}
    found = outliers(prefixes, peers, where)
    incidents_record(IncidentKind.OUTLIER, [Incident(ids[name], why) for name, why in found.items() if name in ids])
    doubted = distrusted_ids()
    PrefixLeg.objects.filter(node__in=doubted).delete()
    return {name for name, pk in ids.items() if pk in doubted}

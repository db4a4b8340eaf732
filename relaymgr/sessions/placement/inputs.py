"""The fleet as placement sees it."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from django.db.models import Q
from django.utils import timezone

from relaymgr.nodes.models import Location, RelayNode, RelayWorker
from relaymgr.nodes.selectors import placement_nodes
from relaymgr.telemetry.estimation.scoring import NodeLoad
from relaymgr.tenants.models import Tenant
from web.ttl_cache import ttl_cache

from ..models import PlacementRule
from .filters import Constraints, Place
from .ranking import Candidate


@ttl_cache
def candidates_now() -> tuple[list[Candidate], dict[int, list[RelayWorker]]]:
    """Every node, and its workers by the node's id. Two queries, however many nodes there are."""
    now = timezone.now()
    places: dict[int, Place] = {}
    candidates = []
    workers: dict[int, list[RelayWorker]] = {}
    for node in placement_nodes():
        if node.location_id not in places:
            places[node.location_id] = _place(node.location)
        workers[node.pk] = list(node.workers.all())
        candidates.append(_candidate(node, places[node.location_id], workers[node.pk], now))
    return candidates, workers


def constraints_of(tenant: Tenant, asked: Mapping[str, Sequence[str]]) -> Constraints:
    """What the request asks for and what the operator says, together. Where both pin, the operator's pins stand."""
    return constraints_joined(rules_of(tenant), asked)


@ttl_cache
def rules_of(tenant: Tenant) -> dict[str, list[str]]:
    """What the operator says: nodes and locations, by the kind of rule."""
    rules = PlacementRule.objects.filter(Q(tenant=None) | Q(tenant=tenant))
    ruled: dict[str, list[str]] = {"pin": [], "ban": [], "prefer": []}
    for kind, node, location in rules.values_list("kind", "node__name", "location__slug"):
        ruled[kind].append(node or location)
    return ruled


def constraints_joined(ruled: Mapping[str, Sequence[str]], asked: Mapping[str, Sequence[str]]) -> Constraints:
    return Constraints(
        pin=tuple(sorted(ruled["pin"] or asked.get("pin", ()))),
        ban=tuple(sorted({*ruled["ban"], *asked.get("ban", ())})),
        prefer=tuple(sorted({*ruled["prefer"], *asked.get("prefer", ())})),
    )


def _place(location: Location) -> Place:
    return Place(
        slug=location.slug,
        city=location.city,
        country=location.country,
        country_code=location.country_code,
        continent=location.continent,
        region=location.region,
        tags=tuple(str(tag) for tag in location.tags),
        latitude=location.latitude,
        longitude=location.longitude,
    )


def _candidate(node: RelayNode, place: Place, workers: list[RelayWorker], now: datetime) -> Candidate:
    load = _load(node, workers, now)
    return Candidate(
        node_id=node.pk,
        node=node.name,
        place=place,
        state=node.state,
        is_draining=node.is_draining or node.is_stopping,
        free_seats=max((worker.free_seats for worker in workers), default=0),
        load=load.load,
        load_age_s=load.age_s,
        price=node.price,
        families=tuple(node.addresses),
    )


def _load(node: RelayNode, workers: list[RelayWorker], now: datetime) -> NodeLoad:
    return NodeLoad(
        cpu=node.cpu,
        free_seats=sum(worker.free_seats for worker in workers),
        capacity=sum(worker.capacity for worker in workers),
        age_s=(now - node.last_seen_at).total_seconds() if node.last_seen_at else None,
    )

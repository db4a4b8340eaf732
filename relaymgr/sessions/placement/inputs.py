"""What the ranking is given: a snapshot of the nodes, the constraints, and estimates of the players' legs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from django.db.models import Q
from django.utils import timezone

from relaymgr.nodes.selectors import placement_nodes
from relaymgr.telemetry.estimation.estimates import Legs, Player, Sample, Site, estimate_legs
from relaymgr.telemetry.estimation.prefixes import prefix_of
from relaymgr.telemetry.estimation.scoring import NodeLoad
from relaymgr.telemetry.selectors import geoip_locate, latency_model_current, prefix_histories
from web.ttl_cache import ttl_cache

from ..models import PlacementRule, RelaySession, Seat
from .filters import Constraints, Filter, NodeLocation
from .ranking import Group, NodeSnapshot

if TYPE_CHECKING:
    from relaymgr.nodes.models import Location, RelayNode, RelayWorker
    from relaymgr.tenants.models import Tenant

# Nodes


@ttl_cache
def node_snapshots() -> tuple[list[NodeSnapshot], dict[int, list[RelayWorker]]]:
    """Every node, and {node id: its workers}. Two queries, however many nodes there are."""
    now = timezone.now()
    locations: dict[int, NodeLocation] = {}
    snapshots = []
    workers: dict[int, list[RelayWorker]] = {}
    for node in placement_nodes():
        if node.location_id not in locations:
            locations[node.location_id] = _location(node.location)
        workers[node.pk] = list(node.workers.all())
        snapshots.append(_snapshot(node, locations[node.location_id], workers[node.pk], now))
    return snapshots, workers


def _location(location: Location) -> NodeLocation:
    return NodeLocation(
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


def _snapshot(node: RelayNode, location: NodeLocation, workers: list[RelayWorker], now: datetime) -> NodeSnapshot:
    load = NodeLoad(
        cpu=node.cpu,
        free_seats=sum(worker.free_seats for worker in workers),
        capacity=sum(worker.capacity for worker in workers),
        age_s=(now - node.last_seen_at).total_seconds() if node.last_seen_at else None,
    )
    return NodeSnapshot(
        node_id=node.pk,
        node=node.name,
        location=location,
        state=node.state,
        is_draining=node.is_draining or node.is_stopping,
        free_seats=max((worker.free_seats for worker in workers), default=0),
        load=load.load,
        load_age_s=load.age_s,
        price=node.price,
        families=tuple(node.addresses),
    )


# Constraints


def constraints_of(tenant: Tenant, requested: Mapping[str, Sequence[str]]) -> Constraints:
    """The constraints of the request and the operator's rules together."""
    return constraints_joined(rules_of(tenant), requested)


@ttl_cache
def rules_of(tenant: Tenant) -> dict[str, list[str]]:
    """{kind of rule: names of nodes and slugs of locations}, from the operator's rules."""
    rules = PlacementRule.objects.filter(Q(tenant=None) | Q(tenant=tenant))
    found: dict[str, list[str]] = {"pin": [], "ban": [], "prefer": []}
    for kind, node, location in rules.values_list("kind", "node__name", "location__slug"):
        found[kind].append(node or location)
    return found


def constraints_joined(rules: Mapping[str, Sequence[str]], requested: Mapping[str, Sequence[str]]) -> Constraints:
    """Pins of the operator replace those of the request."""
    return Constraints(
        pin=tuple(sorted(rules["pin"] or requested.get("pin", ()))),
        ban=tuple(sorted({*rules["ban"], *requested.get("ban", ())})),
        prefer=tuple(sorted({*rules["prefer"], *requested.get("prefer", ())})),
    )


# Players


def group_of(session: RelaySession, constraints: Constraints, *, current_node: str = "") -> Group:
    """The players of a session that exists. Needs its `active_seats`."""
    return Group(
        size=len(session.active_seats),
        topology=session.topology,
        objective=session.objective,
        filters=[Filter(each["field"], tuple(each["values"]), each["filter_type"]) for each in session.filters],
        constraints=constraints,
        current_node=current_node,
        families=families_needed(session.active_seats),
    )


def families_needed(seats: Sequence[Seat]) -> tuple[str, ...]:
    """ipv4, ipv6: those that at least one of the players needs."""
    return tuple(sorted({seat.needed_family for seat in seats} - {""}))


def legs_estimate(seats: Sequence[Seat], nodes: Sequence[NodeSnapshot]) -> Legs:
    """All legs between the seats' players and the nodes."""
    return estimate_legs(players_of(seats), sites_of(nodes), latency_model_current())


def sites_of(nodes: Sequence[NodeSnapshot]) -> list[Site]:
    return [Site(n.node, n.location.slug, n.location.latitude, n.location.longitude) for n in nodes]


def players_of(
    seats: Sequence[Seat], *, live: Mapping[tuple[str, int], Mapping[str, Sample]] | None = None
) -> list[Player]:
    """In the order of the seats. One query for the histories of all their prefixes.

    `live`: {(session, seat number): {node: sample}}, of legs that are in use now.
    """
    now = timezone.now()
    live = live or {}
    prefixes = [prefix_of(seat.ip) if seat.ip else "" for seat in seats]
    histories = prefix_histories(prefixes=set(prefixes) - {""}, now=now)
    return [
        _player(seat, histories.get(prefix, {}), live.get((seat.session_id, seat.number), {}), now)
        for seat, prefix in zip(seats, prefixes, strict=True)
    ]


def _player(seat: Seat, history: Mapping[str, Sample], live: Mapping[str, Sample], now: datetime) -> Player:
    # A live leg replaces what the player measured before.
    measured = {**{name: _sample(stored, now) for name, stored in seat.measurements.items()}, **live}
    if seat.latitude is not None and seat.longitude is not None:
        return Player(measured, history, seat.latitude, seat.longitude)
    found = geoip_locate(seat.ip) if seat.ip else None
    if found is None:
        return Player(measured, history)
    return Player(measured, history, found.latitude, found.longitude, found.accuracy_km)


def _sample(stored: Sequence[float], now: datetime) -> Sample:
    ms, jitter_ms, loss, at = stored
    return Sample(ms, jitter_ms, loss, max(0.0, now.timestamp() - at))

"""The players of a session as estimation sees them: what they measured, where they are, who their neighbours are."""

from collections.abc import Sequence
from datetime import datetime

from django.utils import timezone

from relaymgr.telemetry.estimation import Legs, Player, Sample, Site, estimate_legs
from relaymgr.telemetry.prefixes import prefix_of
from relaymgr.telemetry.selectors import geoip_locate, knowledge_now, prefix_histories

from .models import Seat
from .placement import Candidate


def legs_estimate(seats: Sequence[Seat], candidates: Sequence[Candidate]) -> Legs:
    """All legs between the seats' players and the nodes."""
    sites = [Site(c.node, c.place.slug, c.place.latitude, c.place.longitude) for c in candidates]
    return estimate_legs(players_of(seats), sites, knowledge_now())


def players_of(seats: Sequence[Seat]) -> list[Player]:
    """In the order of the seats. One query for the histories of all their prefixes."""
    now = timezone.now()
    prefixes = [prefix_of(seat.ip) if seat.ip else "" for seat in seats]
    histories = prefix_histories(prefixes=set(prefixes) - {""}, now=now)
    return [_player(seat, histories.get(prefix, {}), now) for seat, prefix in zip(seats, prefixes, strict=True)]


def _player(seat: Seat, history: dict[str, Sample], now: datetime) -> Player:
    claimed = {name: Sample(ms) for name, ms in seat.latencies.items()}
    # What a node has signed goes before what the player says.
    measured = {**claimed, **{node: _signed(sample, now) for node, sample in seat.measured.items()}}
    if seat.latitude is not None and seat.longitude is not None:
        return Player(measured, history, seat.latitude, seat.longitude)
    found = geoip_locate(seat.ip) if seat.ip else None
    if found is None:
        return Player(measured, history)
    return Player(measured, history, found.latitude, found.longitude, found.accuracy_km)


def _signed(sample: Sequence[float], now: datetime) -> Sample:
    ms, jitter_ms, loss, at = sample
    return Sample(ms, jitter_ms, loss, max(0.0, now.timestamp() - at))

"""The players of a session as estimation sees them: what they measured, where they are, who their neighbours are."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from django.conf import settings
from django.utils import timezone

from relaymgr.telemetry.estimation import Legs, Player, Sample, Site, estimate_legs
from relaymgr.telemetry.prefixes import prefix_of
from relaymgr.telemetry.selectors import geoip_locate, knowledge_now, prefix_histories

from .models import Seat
from .placement import Candidate


def legs_estimate(seats: Sequence[Seat], candidates: Sequence[Candidate]) -> Legs:
    """All legs between the seats' players and the nodes."""
    return estimate_legs(players_of(seats), sites_of(candidates), knowledge_now())


def sites_of(candidates: Sequence[Candidate]) -> list[Site]:
    return [Site(c.node, c.place.slug, c.place.latitude, c.place.longitude) for c in candidates]


def players_of(
    seats: Sequence[Seat], *, live: Mapping[tuple[str, int], Mapping[str, Sample]] | None = None
) -> list[Player]:
    """In the order of the seats. One query for the histories of all their prefixes.

    `live`: {(session, number of the seat): {node: sample}} of legs that play now."""
    now = timezone.now()
    live = live or {}
    prefixes = [prefix_of(seat.ip) if seat.ip else "" for seat in seats]
    histories = prefix_histories(prefixes=set(prefixes) - {""}, now=now)
    return [
        _player(seat, histories.get(prefix, {}), live.get((seat.session_id, seat.number), {}), now)
        for seat, prefix in zip(seats, prefixes, strict=True)
    ]


def _player(seat: Seat, history: Mapping[str, Sample], live: Mapping[str, Sample], now: datetime) -> Player:
    age_s = (now - seat.created_at).total_seconds() if seat.created_at else 0.0
    latencies = {} if settings.SIGNED_MEASUREMENTS_ONLY else seat.latencies
    claimed = {name: Sample(ms, age_s=max(0.0, age_s)) for name, ms in latencies.items()}
    signed = {node: _signed(sample, now) for node, sample in seat.measured.items()}
    # What a node has signed goes before what the player says, and what is going on now before both.
    measured = {**claimed, **signed, **live}
    if seat.latitude is not None and seat.longitude is not None:
        return Player(measured, history, seat.latitude, seat.longitude)
    found = geoip_locate(seat.ip) if seat.ip else None
    if found is None:
        return Player(measured, history)
    return Player(measured, history, found.latitude, found.longitude, found.accuracy_km)


def _signed(sample: Sequence[float], now: datetime) -> Sample:
    ms, jitter_ms, loss, at = sample
    return Sample(ms, jitter_ms, loss, max(0.0, now.timestamp() - at))

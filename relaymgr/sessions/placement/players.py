"""The players of a session as estimation sees them: what they measured, where they are, who their neighbours are."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from django.utils import timezone

from relaymgr.telemetry.estimation.estimates import Legs, Player, Sample, Site, estimate_legs
from relaymgr.telemetry.estimation.prefixes import prefix_of
from relaymgr.telemetry.selectors import geoip_locate, latency_model_current, prefix_histories

from ..models import Seat
from .ranking import Candidate


def legs_estimate(seats: Sequence[Seat], candidates: Sequence[Candidate]) -> Legs:
    """All legs between the seats' players and the nodes."""
    return estimate_legs(players_of(seats), sites_of(candidates), latency_model_current())


def families_needed(seats: Sequence[Seat]) -> tuple[str, ...]:
    """ipv4, ipv6: those that at least one of the players needs."""
    return tuple(sorted({seat.needed_family for seat in seats} - {""}))


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
    # What is going on now goes before what the player measured before.
    measured = {**{name: _sample(kept, now) for name, kept in seat.measurements.items()}, **live}
    if seat.latitude is not None and seat.longitude is not None:
        return Player(measured, history, seat.latitude, seat.longitude)
    found = geoip_locate(seat.ip) if seat.ip else None
    if found is None:
        return Player(measured, history)
    return Player(measured, history, found.latitude, found.longitude, found.accuracy_km)


def _sample(kept: Sequence[float], now: datetime) -> Sample:
    ms, jitter_ms, loss, at = kept
    return Sample(ms, jitter_ms, loss, max(0.0, now.timestamp() - at))

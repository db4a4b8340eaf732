"""The nodes' measurements of players' legs: which are accepted, and how they are stored."""

import logging
from collections.abc import Collection, Sequence

from django.core.cache import BaseCache, cache
from django.core.cache.backends.locmem import LocMemCache
from django.utils import timezone

from relaymgr.nodes.health.incidents import Incident, distrusted_ids, incidents_record
from relaymgr.nodes.states import IncidentKind
from relaymgr.telemetry.estimation.estimates import Sample
from relaymgr.telemetry.estimation.trust import is_contradicted, tenants_against
from relaymgr.telemetry.model_learning import prefix_legs_update
from relaymgr.telemetry.models import LegSample
from relaymgr.telemetry.probing import granted_seats
from relaymgr.telemetry.probing.answers import Answer
from relaymgr.telemetry.probing.granted_seats import SeatFacts, not_granted_record
from relaymgr.telemetry.probing.reports import CheckedLeg
from web.database.bulk_sql import rows_insert

LEG_SPACING_S = 10  # between two stored samples of a leg: legs change slowly, and there are many

_process_cache = LocMemCache("telemetry", {"max_entries": 100_000})  # used while the shared cache fails

logger = logging.getLogger(__name__)


def leg_samples_store(answers: Sequence[Answer]) -> None:
    """At most one sample of each leg in LEG_SPACING_S. Legs that the node was not granted, and all legs of a distrusted
    node, are discarded."""
    answers = _due([answer for answer in answers if answer.report.legs])
    if not answers:
        return
    facts = granted_seats.granted(
        {(answer.node.pk, leg.session, leg.seat) for answer in answers for leg in answer.report.legs}
    )
    distrusted = distrusted_ids(among=[answer.node.pk for answer in answers])
    accepted: list[tuple[Answer, CheckedLeg, SeatFacts]] = []
    not_granted, contradicted = [], []
    for answer in answers:
        reported = [(leg, facts.get((answer.node.pk, leg.session, leg.seat))) for leg in answer.report.legs]
        granted = [(answer, leg, seat) for leg, seat in reported if seat is not None]
        not_granted.append((answer.node.pk, len(reported) - len(granted)))
        if answer.node.pk in distrusted:
            continue
        if contradiction := _contradiction(answer, granted):
            contradicted.append(Incident(answer.node.pk, contradiction))
        else:
            accepted += granted
    not_granted_record(not_granted, "legs")
    incidents_record(IncidentKind.OUTLIER, contradicted)
    rows_insert(
        LegSample,
        ("node", "at", "session_id", "seat", "rtt_ms", "jitter_ms", "loss"),
        (
            (answer.node.pk, answer.at, leg.session, leg.seat, leg.rtt_ms, leg.jitter_ms, leg.loss)
            for answer, leg, _ in accepted
        ),
    )
    prefix_legs_update(
        (
            (leg.prefix, leg.player, answer.node.pk, Sample(leg.rtt_ms, leg.jitter_ms, leg.loss))
            for answer, leg, seat in accepted
            if leg.rtt_ms is not None and _may_be_prefix_of(leg.prefix, seat)
        ),
        at=timezone.now(),
    )


def leg_samples_delete(*, session_id: str, seat: int) -> None:
    """Deletes all samples of one leg."""
    LegSample.objects.filter(session_id=session_id, seat=seat).delete()


def _may_be_prefix_of(prefix: str, seat: SeatFacts) -> bool:
    """A player has one network of each family. The prefix of a family that the player did not announce is accepted."""
    return not seat.prefix or seat.prefix == prefix or (":" in seat.prefix) != (":" in prefix)


def _contradiction(answer: Answer, legs: Sequence[tuple[Answer, CheckedLeg, SeatFacts]]) -> str:
    """How the players' own measurements contradict the node; empty if they do not. Players of two tenants must do so,
    because one tenant alone could lie about a node, or those of the only tenant that the node serves."""
    name = answer.node.name
    compared = [
        (seat.tenant, is_contradicted(leg.rtt_ms, seat.own_ms[name]))
        for _, leg, seat in legs
        if leg.rtt_ms is not None and name in seat.own_ms
    ]
    against = tenants_against(compared)
    if not against or (len(against) == 1 and len({seat.tenant for _, _, seat in legs}) > 1):
        return ""
    ratio = f"{sum(is_contradiction for _, is_contradiction in compared)} of {len(compared)}"
    return f"its legs are much shorter than players measured them: {ratio}"


def _due(answers: Sequence[Answer]) -> list[Answer]:
    """The answers of nodes whose legs were last stored LEG_SPACING_S ago. One round runs at a time, so that no other
    process interferes between the two calls of the cache."""
    by_key = {f"legs:{answer.node.pk}": answer for answer in answers}
    try:
        due = _due_keys(cache, by_key)
    except Exception as error:  # the exceptions of cache backends have no common base
        logger.warning("the cache failed; each worker spaces samples of legs on its own: %s", type(error).__name__)
        due = _due_keys(_process_cache, by_key)
    return [by_key[key] for key in due]


def _due_keys(memory: BaseCache, keys: Collection[str]) -> list[str]:
    """The keys that were not due within the spacing; marks them."""
    done = memory.get_many(keys)
    due = [key for key in keys if key not in done]
    # Slightly less than the spacing: otherwise a round that starts a moment early would skip a sample.
    memory.set_many(dict.fromkeys(due, True), timeout=LEG_SPACING_S - 1)
    return due

"""The tasks that the schedule runs (relaymgr/celery.py). A lease keeps a slow round from overlapping the next."""

from celery import shared_task
from django.utils import timezone

from relaymgr.telemetry.services import lease_held

from . import player_data, reconciler
from .apis import idempotency
from .placement import reevaluation
from .relays.moves import moves_finish
from .relays.providing import standbys_check
from .webhooks import circuits, dispatch

LEASE_S = 60.0  # the time limit of tasks: no round can hold it longer


@shared_task
def events_apply() -> None:
    reconciler.events_apply()


@shared_task
def sessions_expire() -> None:
    reconciler.sessions_expire()


@shared_task
def grants_reconcile() -> None:
    with lease_held("grants", LEASE_S) as held:
        if held:
            moves_finish()
            standbys_check()
            reconciler.grants_reconcile()


@shared_task
def webhooks_deliver() -> None:
    dispatch.deliver_due()  # no lease: several workers send at once


@shared_task
def sessions_reevaluate() -> None:
    with lease_held("reevaluate", LEASE_S) as held:
        if held:
            reevaluation.sessions_reevaluate()


@shared_task
def sessions_prune() -> None:
    reconciler.sessions_prune()
    circuits.circuits_prune(timezone.now())


@shared_task
def players_minimise() -> None:
    with lease_held("minimise", LEASE_S) as held:
        if held:
            player_data.players_minimise()
            player_data.payloads_prune()


@shared_task
def idempotency_prune() -> None:
    idempotency.idempotency_prune()

"""The schedule's way in (relaymgr/celery.py). A lease keeps a slow round from overlapping the next."""

from celery import shared_task

from relaymgr.telemetry.services import lease_held

from . import idempotency, upkeep, webhooks

LEASE_S = 60.0  # the tasks' time limit: a round that holds it longer is dead


@shared_task
def events_apply() -> None:
    upkeep.events_apply()


@shared_task
def sessions_expire() -> None:
    upkeep.sessions_expire()


@shared_task
def grants_reconcile() -> None:
    with lease_held("grants", LEASE_S) as held:
        if held:
            upkeep.grants_reconcile()


@shared_task
def webhooks_deliver() -> None:
    with lease_held("webhooks", LEASE_S) as held:
        if held:
            webhooks.deliver_due()


@shared_task
def sessions_prune() -> None:
    upkeep.sessions_prune()


@shared_task
def idempotency_prune() -> None:
    idempotency.idempotency_prune()

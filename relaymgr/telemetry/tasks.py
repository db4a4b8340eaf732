from celery import shared_task

from relaymgr.telemetry import services


@shared_task(time_limit=30, soft_time_limit=20)
def probe() -> None:
    services.probe_round()


@shared_task
def samples_prune() -> None:
    services.samples_prune()

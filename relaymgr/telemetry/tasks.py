from celery import shared_task

from relaymgr.nodes.health.state_changes import state_changes_prune
from relaymgr.telemetry import services


@shared_task(time_limit=30, soft_time_limit=20)
def probe() -> None:
    services.probe_round()


@shared_task
def latency_model_fit() -> None:
    with services.lease_held("learn", 60.0) as held:
        if held:
            services.latency_model_fit()


@shared_task
def samples_prune() -> None:
    """Summarises first, because deleted samples cannot be summarised."""
    services.samples_roll_up()
    services.samples_prune()
    services.prefix_legs_prune()
    state_changes_prune()

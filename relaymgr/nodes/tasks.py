from celery import shared_task

from relaymgr.nodes import services


@shared_task
def token_keys_renew() -> None:
    services.token_keys_renew()

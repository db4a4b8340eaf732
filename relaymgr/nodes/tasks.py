from celery import shared_task

from relaymgr.nodes import keys


@shared_task
def token_keys_renew() -> None:
    keys.token_keys_renew()

"""The manager: a Django project."""

from relaymgr.celery import app as celery_app

__all__ = ["celery_app"]

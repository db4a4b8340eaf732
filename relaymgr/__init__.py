"""The manager: a Django project."""

import os

# Before numpy is imported. Our matrices are small, so that several threads would only wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from relaymgr.celery import app as celery_app

__all__ = ["celery_app"]

"""The settings, but for that a PostgreSQL makes them those of production, which wants a Redis."""

from relaymgr.settings import *  # noqa: F403

IS_PRODUCTION = False

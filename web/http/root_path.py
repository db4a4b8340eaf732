"""The path below which a proxy serves the manager, which is part of every link in responses."""

from typing import Any

from django.conf import settings
from django.contrib.staticfiles.storage import StaticFilesStorage
from django.urls import get_script_prefix
from whitenoise.storage import CompressedManifestStaticFilesStorage


def root_path() -> str:
    """Without a trailing slash; empty for the root. Set by CAUSEWAY_ROOT_PATH for all processes, or by the web server's
    --root-path, which is known during requests only."""
    return (settings.FORCE_SCRIPT_NAME or get_script_prefix()).rstrip("/")


class _BelowRootPath:
    """Builds the URL of a static file for each request, so that the first request does not decide for all."""

    @property
    def base_url(self) -> str:
        return f"{root_path()}{settings.STATIC_PATH}"

    @base_url.setter
    def base_url(self, value: Any) -> None:
        """Ignores Django's fixed value."""


class PlainStorage(_BelowRootPath, StaticFilesStorage):
    pass


class HashedStorage(_BelowRootPath, CompressedManifestStaticFilesStorage):  # type: ignore[misc]  # has no types
    pass

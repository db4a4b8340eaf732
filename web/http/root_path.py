"""The path under which a proxy serves us, where that is not the root of its host: part of every link that we write."""

from typing import Any

from django.conf import settings
from django.contrib.staticfiles.storage import StaticFilesStorage
from django.urls import get_script_prefix
from whitenoise.storage import CompressedManifestStaticFilesStorage


def root_path() -> str:
    """Without a slash at its end; empty: the root. By CAUSEWAY_ROOT_PATH, which all processes share, or else by the
    server's --root-path, which only requests know."""
    return (settings.FORCE_SCRIPT_NAME or get_script_prefix()).rstrip("/")


class _BelowRootPath:
    """The address of a static file is made for each request: the first one must not decide for all."""

    @property
    def base_url(self) -> str:
        return f"{root_path()}{settings.STATIC_PATH}"

    @base_url.setter
    def base_url(self, value: Any) -> None:
        """Django's own, which is the same for all."""


class PlainStorage(_BelowRootPath, StaticFilesStorage):
    pass


class HashedStorage(_BelowRootPath, CompressedManifestStaticFilesStorage):  # type: ignore[misc]  # has no types
    pass

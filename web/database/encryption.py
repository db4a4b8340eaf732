"""Secrets the manager must be able to read again: seat tokens and keys, control keys, webhook secrets.

They are sealed at rest with Fernet under a key derived (HKDF-SHA-256) from SECRET_KEY;
SECRET_KEY_FALLBACKS still open them.
Keys that are only ever compared are hashed instead: see `tenants.models.ApiKey`.
"""

import base64
from functools import lru_cache

from cryptography.fernet import Fernet, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings
from django.db import models


@lru_cache(maxsize=4)
def _fernet(secrets: tuple[str, ...]) -> MultiFernet:
    keys = [HKDF(SHA256(), 32, salt=None, info=b"causeway sealing v1").derive(s.encode()) for s in secrets]
    return MultiFernet([Fernet(base64.urlsafe_b64encode(key)) for key in keys])


@lru_cache(maxsize=50_000)
def _opened(sealed: str, secrets: tuple[str, ...]) -> str:
    """Remembered: the control keys of all nodes are read every other second, the tokens of all seats each minute."""
    return _fernet(secrets).decrypt(sealed.encode()).decode()


def _secrets() -> tuple[str, ...]:
    return settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS


class EncryptedTextField(models.TextField):
    """Text that is sealed in the database and plain in Python. Cannot be searched."""

    def get_prep_value(self, value: str | None) -> str | None:
        return None if value is None else _fernet(_secrets()).encrypt(value.encode()).decode()

    def from_db_value(self, value: str | None, expression: object, connection: object) -> str | None:
        return None if value is None else _opened(value, _secrets())

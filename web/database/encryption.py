"""Columns whose values are encrypted at rest: seat tokens and keys, control keys, webhook secrets, assignments.

The cipher is Fernet with a key that HKDF-SHA-256 derives from SECRET_KEY. Values that were encrypted under a key of
SECRET_KEY_FALLBACKS can still be decrypted. Keys that only have to be compared are hashed instead (`ApiKey`).
"""

import base64
import json
from functools import lru_cache
from typing import Any

from cryptography.fernet import Fernet, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings
from django.db import models


def encrypt(text: str) -> str:
    return _fernet(_secrets()).encrypt(text.encode()).decode()


def decrypt(text: str) -> str:
    """Raises InvalidToken for text that was not encrypted under one of our keys."""
    return _decrypt(text, _secrets())


class EncryptedTextField(models.TextField):
    """Text that is encrypted in the database and plain in Python. It cannot be searched."""

    def get_prep_value(self, value: str | None) -> str | None:
        return None if value is None else encrypt(value)

    def from_db_value(self, value: str | None, expression: object, connection: object) -> str | None:
        return None if value is None else decrypt(value)


class EncryptedJSONField(models.TextField):
    """What JSON can represent, encrypted as in `EncryptedTextField`; None is stored as NULL."""

    def get_prep_value(self, value: Any) -> str | None:
        return None if value is None else encrypt(json.dumps(value))

    def from_db_value(self, value: str | None, expression: object, connection: object) -> Any:
        return None if value is None else json.loads(decrypt(value))


def _secrets() -> tuple[str, ...]:
    return settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS


@lru_cache(maxsize=4)
def _fernet(secrets: tuple[str, ...]) -> MultiFernet:
    keys = [HKDF(SHA256(), 32, salt=None, info=b"causeway encrypted fields v1").derive(s.encode()) for s in secrets]
    return MultiFernet([Fernet(base64.urlsafe_b64encode(key)) for key in keys])


@lru_cache(maxsize=50_000)
def _decrypt(text: str, secrets: tuple[str, ...]) -> str:
    """Cached, because the control keys of all nodes are read every two seconds and the tokens of all seats each
    minute."""
    return _fernet(secrets).decrypt(text.encode()).decode()

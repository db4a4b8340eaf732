"""Players' tokens at rest: sealed in the database, plain in Python.

Fernet under a key derived (HKDF-SHA-256) from SECRET_KEY; SECRET_KEY_FALLBACKS still open. The manager seals in the
same way under a key of its own: neither opens what the other sealed.
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


@lru_cache(maxsize=4)
def _fernet(secrets: tuple[str, ...]) -> MultiFernet:
    keys = [HKDF(SHA256(), 32, salt=None, info=b"causeway matchmaker v1").derive(s.encode()) for s in secrets]
    return MultiFernet([Fernet(base64.urlsafe_b64encode(key)) for key in keys])


def _current() -> MultiFernet:
    return _fernet((settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS))


class SealedJSONField(models.TextField):
    """None, or what JSON can hold. Cannot be searched."""

    def get_prep_value(self, value: Any) -> str | None:
        return None if value is None else _current().encrypt(json.dumps(value).encode()).decode()

    def from_db_value(self, value: str | None, expression: object, connection: object) -> Any:
        return None if value is None else json.loads(_current().decrypt(value.encode()))

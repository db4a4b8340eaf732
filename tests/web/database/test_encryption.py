"""Encrypted columns: what the database stores cannot be read, and former keys still decrypt."""

import pytest
from cryptography.fernet import InvalidToken
from django.conf import LazySettings

from web.database.encryption import EncryptedJSONField, EncryptedTextField, decrypt, encrypt


@pytest.mark.parametrize("field", [EncryptedTextField(), EncryptedJSONField()])
@pytest.mark.parametrize("value", ["", "secret", None])
def test_a_value_survives_the_database_and_is_not_readable_there(
    field: EncryptedTextField | EncryptedJSONField, value: str | None
) -> None:
    stored = field.get_prep_value(value)
    assert stored is None if value is None else stored and "secret" not in stored
    assert field.from_db_value(stored, None, None) == value


def test_json_keeps_its_structure() -> None:
    field, value = EncryptedJSONField(), {"players": [1, 2.5, None], "": {"nested": True}}
    assert field.from_db_value(field.get_prep_value(value), None, None) == value


def test_a_former_key_still_decrypts(settings: LazySettings) -> None:
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "old", []
    stored = encrypt("text")
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "new", ["old"]
    assert decrypt(stored) == "text"
    settings.SECRET_KEY_FALLBACKS = []
    with pytest.raises(InvalidToken):
        decrypt(stored)

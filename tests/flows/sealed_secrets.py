"""Prints, as JSON, every secret that is sealed in the database of a stack. Run with the stack's own environment."""

import json
from typing import Any

import django

SECRET_NAMES = {"authorization_token", "connect_token", "seat_key", "offer_key"}


def secrets() -> set[str]:
    from django.apps import apps

    from web.database.encryption import EncryptedJSONField, EncryptedTextField

    found: set[str] = set()
    for model in apps.get_models():
        names = [f.name for f in model._meta.get_fields() if isinstance(f, EncryptedTextField | EncryptedJSONField)]
        for row in model._base_manager.values_list(*names) if names else ():
            found |= set().union(*map(_secrets, row))
    return found


def _secrets(value: Any) -> set[str]:
    if not isinstance(value, str):
        return _of_document(value)
    return _of_document(json.loads(value)) if value.startswith("{") else {value}


def _of_document(document: Any) -> set[str]:
    """A payload or an assignment has secrets in it, and much that is none."""
    if isinstance(document, list):
        return set().union(*map(_of_document, document))
    if not isinstance(document, dict):
        return set()
    named = {str(document[name]) for name in SECRET_NAMES & document.keys()}
    return named.union(*map(_of_document, document.values()))


if __name__ == "__main__":
    django.setup()
    print(json.dumps(sorted(secrets())))

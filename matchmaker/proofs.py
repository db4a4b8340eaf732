"""What a player gets with its assignment to prove later what it was in that match. Derived from SECRET_KEY; not kept.

All players of a studio share a key, and know each other's `player_id`: neither shows who is calling.
"""

from django.conf import settings
from django.utils.crypto import constant_time_compare, salted_hmac

HOST, SEAT = "causeway.matchmaker.host", "causeway.matchmaker.seat"


def host_key(session_id: str) -> str:
    """For the host of a match: it may ask for a backfill of its session."""
    return _proof(HOST, session_id, settings.SECRET_KEY)


def is_host_key(key: object, session_id: str) -> bool:
    return _is_proof(key, HOST, session_id)


def rejoin_key(session_id: str, player_id: str) -> str:
    """For a player: it may get its own seat in the session again. The id of the session is part of it."""
    return f"{session_id}.{_proof(SEAT, f'{session_id}/{player_id}', settings.SECRET_KEY)}"


def session_of_rejoin_key(key: str, player_id: str) -> str | None:
    """The session in which this player has a seat; None: the key is not this player's."""
    session_id, _, proof = key.partition(".")
    return session_id if _is_proof(proof, SEAT, f"{session_id}/{player_id}") else None


def _proof(salt: str, value: str, secret: str) -> str:
    return salted_hmac(salt, value, secret=secret, algorithm="sha256").hexdigest()[:40]


def _is_proof(key: object, salt: str, value: str) -> bool:
    secrets = (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
    return isinstance(key, str) and any(constant_time_compare(key, _proof(salt, value, secret)) for secret in secrets)

"""Keys in an assignment that prove later which seat a player had. They are derived from SECRET_KEY and not stored.

All players of a tenant share an API key and know each other's `player_id`, so that neither identifies a caller.
"""

from django.conf import settings
from django.utils.crypto import constant_time_compare, salted_hmac

HOST, SEAT = "causeway.matchmaker.host", "causeway.matchmaker.seat"


def host_key(session_id: str) -> str:
    """For the host of a match, who may request a backfill for its session."""
    return _proof(HOST, session_id, settings.SECRET_KEY)


def is_host_key(key: object, session_id: str) -> bool:
    return _is_proof(key, HOST, session_id)


def rejoin_key(session_id: str, player_id: str) -> str:
    """For a player, who may return to its seat in the session. It contains the id of the session."""
    return f"{session_id}.{_proof(SEAT, f'{session_id}/{player_id}', settings.SECRET_KEY)}"


def session_of_rejoin_key(key: str, player_id: str) -> str | None:
    """The session in which this player has a seat; None: the key does not belong to this player."""
    session_id, _, proof = key.partition(".")
    return session_id if _is_proof(proof, SEAT, f"{session_id}/{player_id}") else None


def _proof(salt: str, value: str, secret: str) -> str:
    return salted_hmac(salt, value, secret=secret, algorithm="sha256").hexdigest()[:40]


def _is_proof(key: object, salt: str, value: str) -> bool:
    secrets = (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
    return isinstance(key, str) and any(constant_time_compare(key, _proof(salt, value, secret)) for secret in secrets)

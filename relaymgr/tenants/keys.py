"""The format of every key: `cw_<prefix>_<secret>`. A key is shown once, stored as a hash, and found by its prefix."""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

_FORM = re.compile(r"cw_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")


@dataclass(frozen=True)
class NewKey:
    plain: str
    prefix: str
    secret_hash: str

    def __repr__(self) -> str:
        return f"NewKey(prefix={self.prefix!r})"


def new_key() -> NewKey:
    prefix, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    return NewKey(f"cw_{prefix}_{secret}", prefix, _hash(secret))


def split_key(presented: str) -> tuple[str, str] | None:
    """(prefix, hash of the secret); None for text that does not have the format of a key."""
    match = _FORM.fullmatch(presented)
    return (match[1], _hash(match[2])) if match else None


def hashes_match(one: str, other: str) -> bool:
    return hmac.compare_digest(one, other)


def _hash(secret: str) -> str:
    # One round is enough for 256 random bits. A slow hash protects weak passwords, and every request would pay for it.
    return hashlib.sha256(secret.encode()).hexdigest()

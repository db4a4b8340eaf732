"""Connect tokens and keys in the form of the REST API. They are never part of an exception or of a command line."""

import base64
import binascii
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class CredentialsError(ValueError):
    """Credentials are missing or cannot be read. The message contains their names, never their values."""


@dataclass(frozen=True)
class Standby:
    """A second relay of the session, and the token for it. `host`: a name, an IP literal, or several of them."""

    host: str | Sequence[str]
    port: int
    connect_token: bytes | str

    def __repr__(self) -> str:
        return f"Standby({self.host!r}, {self.port})"  # without the token

    @classmethod
    def of(cls, value: "Standby | Mapping[str, Any] | None") -> "Standby | None":
        """From the object `standby` of a player in the API's answers. Raises CredentialsError."""
        if not isinstance(value, Mapping):
            return value
        try:
            # Native players may use either port of a relay.
            port = int(value["ports"]["client"]["port"])
            return cls([str(host) for host in value["relay_ips"]], port, str(value["connect_token"]))
        except (KeyError, TypeError, ValueError):
            raise CredentialsError("standby: expected relay_ips, ports and connect_token") from None


def decode_secret(value: bytes | str) -> bytes:
    """Decodes base64url text, with or without padding; returns bytes unchanged. Raises CredentialsError."""
    if isinstance(value, bytes):
        return value
    text = value.strip()
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise CredentialsError("token or key: not base64url") from None


def load(
    names: Collection[str], environ: Mapping[str, str], path: Path | None, optional: Collection[str] = ()
) -> dict[str, str]:
    """The named credentials as text; those that are `optional` only if they are given. They are read from the JSON
    object in the file, such as a user's entry of the REST answer, or without a file from the environment (`seat_key` is
    CAUSEWAY_SEAT_KEY). Raises CredentialsError."""
    wanted = [*names, *optional]
    source = _read(path) if path else {name: environ.get(f"CAUSEWAY_{name.upper()}") for name in wanted}
    found: dict[str, str] = {}
    for name in wanted:
        if name in optional and not source.get(name):
            continue
        value = source.get(name)
        if isinstance(value, Mapping):
            value = json.dumps(value)
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            where = f"{path}: no {name}" if path else f"CAUSEWAY_{name.upper()} is not set"
            raise CredentialsError(where)
        found[name] = str(value)
    return found


def decode_standby(text: str | None) -> Standby | None:
    """From JSON. Raises CredentialsError."""
    try:
        value = json.loads(text) if text else None
    except ValueError:
        raise CredentialsError("standby: not JSON") from None
    if value is not None and not isinstance(value, dict):
        raise CredentialsError("standby: not a JSON object")
    return Standby.of(value)


def decode_number(name: str, text: str) -> int:
    """A 32-bit token of the edgegap dialect. Raises CredentialsError."""
    if not text.isascii() or not text.isdigit() or int(text) >= 2**32:
        raise CredentialsError(f"{name}: not a 32-bit number")
    return int(text)


def _read(path: Path) -> Mapping[str, object]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CredentialsError(f"{path}: {type(error).__name__}") from None
    if not isinstance(content, dict):
        raise CredentialsError(f"{path}: not a JSON object")
    return content

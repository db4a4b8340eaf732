"""Grants: a node being told of a session, as JSON and as frozen dataclasses (docs/node-api.md)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from causeway_client.protocol.packets import MAX_SEATS, NATIVE_FIRST, NATIVE_LAST, STUN_COOKIE

Topology = Literal["host", "mesh"]

DIALECTS = ("edgegap", "native")
FOREVER = 1e11  # seconds since 1970; no time of a grant is as late
_SESSION = re.compile(r"[0-9a-f]{12}-S")
_U32 = 0xFFFFFFFF
_STUN_COOKIE = int.from_bytes(STUN_COOKIE, "little")
_JSON_NAMES = {str: "a text", list: "a list", bool: "true or false", dict: "an object"}


class GrantRefused(Exception):
    """A grant was not taken over. `code` is one of docs/node-api.md: invalid, draining, full, session_ended."""

    def __init__(
        self, code: Literal["invalid", "draining", "full", "session_ended"], message: str, field: str = ""
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field  # "seats[2].token"; empty when it is not about a field


@dataclass(frozen=True, slots=True)
class Limits:
    """A second's worth; 0 is no limit."""

    packets: int = 0
    bytes: int = 0

    @classmethod
    def from_json(cls, data: object, path: str = "limits") -> "Limits":
        fields = _object(data, path)
        return cls(packets=_integer(fields, "packets", 0, _U32, path), bytes=_integer(fields, "bytes", 0, _U32, path))

    def to_json(self) -> dict[str, int]:
        return {"packets": self.packets, "bytes": self.bytes}


@dataclass(frozen=True, slots=True)
class SeatGrant:
    seat: int
    token: int | None = field(repr=False)  # of the edgegap dialect; None: the seat cannot speak it
    revoked: bool = False
    limits: Limits = Limits()

    @classmethod
    def from_json(cls, data: object, path: str = "seat") -> "SeatGrant":
        fields = _object(data, path)
        token = _token(fields, path)
        # Its first byte on the wire tells the dialects apart (PROTOCOL.md 2).
        if token is not None and NATIVE_FIRST <= token & 0xFF <= NATIVE_LAST:
            raise _invalid(f"{path}.token", "must not have a low byte in 0xC0..0xCF")
        return cls(
            seat=_integer(fields, "seat", 0, MAX_SEATS - 1, path),
            token=token,
            revoked=_value(fields, "revoked", bool, path),
            limits=Limits.from_json(fields.get("limits"), f"{path}.limits"),
        )

    def to_json(self) -> dict[str, Any]:
        return {"seat": self.seat, "token": self.token, "revoked": self.revoked, "limits": self.limits.to_json()}


@dataclass(frozen=True, slots=True)
class Grant:
    session: str
    revision: int  # 0: never granted, made up from a connect token
    worker: int
    token: int | None = field(repr=False)
    topology: Topology
    dialects: tuple[str, ...]
    idle_timeout: float  # seconds
    expires_at: float  # seconds since 1970
    limits: Limits
    seats: tuple[SeatGrant, ...]

    @classmethod
    def from_json(cls, data: object) -> "Grant":
        """Raises GrantRefused "invalid", naming the field. Fields it does not know are ignored."""
        fields = _object(data, "")
        session = _value(fields, "session", str)
        if not _SESSION.fullmatch(session):
            raise _invalid("session", 'must be 12 lowercase hexadecimal digits and "-S"')
        topology = _value(fields, "topology", str)
        if topology not in ("host", "mesh"):
            raise _invalid("topology", "must be host or mesh")
        token = _token(fields)
        if token == _STUN_COOKIE:
            raise _invalid("token", "must not be the STUN cookie")
        dialects = _dialects(fields)
        if token is None and "edgegap" in dialects:
            raise _invalid("token", "must be given where edgegap is spoken")
        return cls(
            session=session,
            revision=_integer(fields, "revision", 0, _U32),
            worker=_integer(fields, "worker", 0, 255),
            token=token,
            topology=topology,
            dialects=dialects,
            idle_timeout=_seconds(fields, "idle_timeout"),
            expires_at=_seconds(fields, "expires_at"),
            limits=Limits.from_json(fields.get("limits")),
            seats=_seats(fields),
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "session": self.session,
            "revision": self.revision,
            "worker": self.worker,
            "token": self.token,
            "topology": self.topology,
            "dialects": list(self.dialects),
            "idle_timeout": self.idle_timeout,
            "expires_at": self.expires_at,
            "limits": self.limits.to_json(),
            "seats": [seat.to_json() for seat in self.seats],
        }


def _seats(fields: Mapping[str, Any]) -> tuple[SeatGrant, ...]:
    seats = tuple(
        SeatGrant.from_json(item, f"seats[{index}]") for index, item in enumerate(_value(fields, "seats", list))
    )
    if len({seat.seat for seat in seats}) < len(seats):
        raise _invalid("seats", "must not name a seat twice")
    tokens = [seat.token for seat in seats if seat.token is not None]
    if len(set(tokens)) < len(tokens):
        raise _invalid("seats", "must not give two seats one token")
    return seats


def _dialects(fields: Mapping[str, Any]) -> tuple[str, ...]:
    dialects = _value(fields, "dialects", list)
    if not dialects or any(dialect not in DIALECTS for dialect in dialects):
        raise _invalid("dialects", "must be one or more of edgegap, native")
    return tuple(dialect for dialect in DIALECTS if dialect in dialects)


def _token(fields: Mapping[str, Any], path: str = "") -> int | None:
    return None if fields.get("token", 0) is None else _integer(fields, "token", 1, _U32, path)


def _integer(fields: Mapping[str, Any], name: str, lowest: int, highest: int, path: str = "") -> int:
    value = fields.get(name)
    # bool is an int to Python, but not to JSON.
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
        raise _invalid(_join(path, name), f"must be a whole number from {lowest} to {highest}")
    return value


def _seconds(fields: Mapping[str, Any], name: str) -> float:
    value = fields.get(name)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < FOREVER:
        raise _invalid(name, "must be seconds, more than 0")
    return value


def _value(fields: Mapping[str, Any], name: str, kind: type, path: str = "") -> Any:
    value = fields.get(name)
    if not isinstance(value, kind):
        raise _invalid(_join(path, name), f"must be {_JSON_NAMES[kind]}")
    return value


def _object(data: object, path: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise _invalid(path, "must be an object")
    return data


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _invalid(field: str, message: str) -> GrantRefused:
    return GrantRefused("invalid", f"{field or 'grant'} {message}", field)

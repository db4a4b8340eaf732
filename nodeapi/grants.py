"""The grant: one session that a node is to serve, whole."""

from ipaddress import ip_address
from typing import Annotated, Literal

from msgspec import Meta, Struct
from msgspec.structs import replace

from causeway_client.protocol.offers import MAX_DEADLINE
from causeway_client.protocol.packets import MAX_SEATS, NATIVE_FIRST, NATIVE_LAST, STUN_COOKIE

from .ids import SessionId
from .strict_json import InvalidDocument, read_document

Topology = Literal["host", "mesh"]
Dialect = Literal["edgegap", "native"]
DirectModeName = Literal["relay_only", "ask", "direct"]
Role = Literal["active", "standby"]
OfferKindName = Literal["standby", "move", "token"]
EndReason = Literal["deleted", "idle", "expired", "failed", "migrated"]

DIALECTS: tuple[Dialect, ...] = ("edgegap", "native")
DIRECT_MODES: tuple[DirectModeName, ...] = ("relay_only", "ask", "direct")  # PROTOCOL.md 12.6, by number
ROLES: tuple[Role, ...] = ("active", "standby")
OFFER_KINDS: tuple[OfferKindName, ...] = ("standby", "move", "token")  # PROTOCOL.md 14.6, from 1
END_REASONS: tuple[EndReason, ...] = ("deleted", "idle", "expired", "failed", "migrated")
MAX_WORKERS = 256  # a connect token names its worker in one byte
MAX_DIRECT_GRACE = 600  # seconds
TIME_LIMIT = 1e11  # seconds since 1970; every time in a grant is before it

U32 = Annotated[int, Meta(ge=0, lt=2**32)]
Token = Annotated[int, Meta(ge=1, lt=2**32)]
Worker = Annotated[int, Meta(ge=0, lt=MAX_WORKERS)]
SeatNumber = Annotated[int, Meta(ge=0, lt=MAX_SEATS)]
Epoch = Annotated[int, Meta(ge=0, lt=2**16)]
Seconds = Annotated[float, Meta(gt=0, lt=TIME_LIMIT)]

_STUN_COOKIE = int.from_bytes(STUN_COOKIE, "little")


class Limits(Struct, frozen=True):
    """Per second; 0 is no limit."""

    packets: U32
    bytes: U32


NO_LIMITS = Limits(0, 0)


class SeatOffer(Struct, frozen=True):
    """What the node offers to the player of a seat, until it is acknowledged (PROTOCOL.md 14.6)."""

    id: Annotated[int, Meta(ge=1, lt=2**32)]
    kind: OfferKindName
    ip: str
    port: Annotated[int, Meta(ge=1, le=65_535)]
    token: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_-]{160}\Z")]  # the connect token, base64url of 120 bytes
    second_ip: str = ""  # in the other address family
    deadline_ms: Annotated[int, Meta(ge=0, le=MAX_DEADLINE)] = 0

    def __repr__(self) -> str:
        return f"SeatOffer(id={self.id}, kind={self.kind!r})"  # without the token


class SeatGrant(Struct, frozen=True):
    seat: SeatNumber
    token: Token | None  # of the edgegap dialect; None: the seat cannot use it
    revoked: bool
    limits: Limits
    direct_mode: DirectModeName = "relay_only"
    offer: SeatOffer | None = None

    def __repr__(self) -> str:
        return f"SeatGrant(seat={self.seat})"  # without the token


class Grant(Struct, frozen=True):
    session: SessionId
    revision: U32  # 0: never granted, derived from a connect token
    worker: Worker
    token: Token | None
    topology: Topology
    dialects: Annotated[tuple[Dialect, ...], Meta(min_length=1)]
    idle_timeout: Seconds
    expires_at: Seconds  # since 1970
    limits: Limits
    seats: tuple[SeatGrant, ...]
    direct_grace: Annotated[int, Meta(ge=0, le=MAX_DIRECT_GRACE)] = 0  # seconds (PROTOCOL.md 12.7)
    role: Role = "active"  # of this node for the session (PROTOCOL.md 14)
    epoch: Epoch = 0

    def __repr__(self) -> str:
        return f"Grant(session={self.session!r}, revision={self.revision})"  # without tokens


class GrantConfirmation(Struct, frozen=True, kw_only=True):
    """The answer to a grant: the revision that is in force now."""

    revision: int
    session: str = ""


def parse_grant(data: object) -> Grant:
    """Raises InvalidDocument. Fields that a later version may add are ignored."""
    try:
        grant = read_document(data, Grant)
    except InvalidDocument as error:
        if error.field.startswith("dialects"):
            raise InvalidDocument("must be one or more of edgegap, native", "dialects") from None
        raise
    if grant.token == _STUN_COOKIE:
        raise InvalidDocument("must not be the STUN cookie", "token")
    if grant.token is None and "edgegap" in grant.dialects and grant.revision > 0:
        raise InvalidDocument("must be given when the dialects include edgegap", "token")
    _check_seats(grant.seats)
    in_order = tuple(dialect for dialect in DIALECTS if dialect in grant.dialects)
    return grant if in_order == grant.dialects else replace(grant, dialects=in_order)


def _check_offer(offer: SeatOffer, field: str) -> None:
    version = _ip_version(offer.ip, f"{field}.ip")
    if offer.second_ip and _ip_version(offer.second_ip, f"{field}.second_ip") == version:
        raise InvalidDocument("must be of the other address family", f"{field}.second_ip")


def _ip_version(ip: str, field: str) -> int:
    try:
        address = ip_address(ip)
    except ValueError:
        raise InvalidDocument("must be an IP address", field) from None
    if "%" in ip:
        raise InvalidDocument("must not have a scope", field)
    return address.version


def _check_seats(seats: tuple[SeatGrant, ...]) -> None:
    for index, seat in enumerate(seats):
        if seat.offer is not None:
            _check_offer(seat.offer, f"seats[{index}].offer")
        # The first byte of a datagram identifies the dialect (PROTOCOL.md 2).
        if seat.token is not None and NATIVE_FIRST <= seat.token & 0xFF <= NATIVE_LAST:
            raise InvalidDocument("must not have a low byte in 0xC0..0xDF", f"seats[{index}].token")
    if len({seat.seat for seat in seats}) < len(seats):
        raise InvalidDocument("must not contain a seat more than once", "seats")
    tokens = [seat.token for seat in seats if seat.token is not None]
    if len(set(tokens)) < len(tokens):
        raise InvalidDocument("must not give two seats the same token", "seats")

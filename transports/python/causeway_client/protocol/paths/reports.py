"""PATH_REPORT: what a player reports to the node about its paths to other players (PROTOCOL.md 12.9)."""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from ..errors import DecodeError
from ..packets import MAX_SEATS

_ENTRY = struct.Struct("<BBBBIIII")
_U32_MAX = 0xFFFFFFFF
MAX_ENTRIES = 32
REPORT_INTERVAL = 10.0  # seconds
MIN_REPORT_INTERVAL = 0.3  # seconds between two reports about changes
MAX_ENDED = 64  # reports about pairs that have ended, which wait to be sent


class PathKind(IntEnum):
    RELAY = 0
    LOCAL_NETWORK = 1
    IPV4 = 2
    IPV6 = 3
    PORT_MAPPED = 4


class PathReason(IntEnum):
    """Why a player sends to a peer on the path that it uses."""

    NONE = 0
    FIRST_PATH = 1
    BETTER = 2
    PATH_FAILED = 3
    PEER_LEFT = 4
    NOT_PERMITTED = 5
    NO_DIRECT_PATH = 6
    ONLY_SMALL_PACKETS = 7
    RECOVERED = 8


@dataclass(frozen=True, slots=True)
class PathReport:
    """About one peer. Round trips are in microseconds, end to end, and 0 if not measured; the loss is 0.0 to 1.0;
    packets and bytes (of UDP payload) are those sent on direct paths since the last report."""

    seat: int
    path: PathKind
    reason: PathReason
    loss: float
    round_trip: int
    relay_round_trip: int
    packets: int
    bytes: int


@dataclass(frozen=True, slots=True)
class PathInfo:
    """The path on which this player sends to `seat`. Round trips are in milliseconds, end to end, None before the first
    answer; the loss is 0.0 to 1.0; `since` is a time of the machine's clock."""

    seat: int
    path: PathKind
    address: tuple[str, int] | None
    reason: PathReason
    since: float
    rtt_ms: float | None
    jitter_ms: float
    loss: float
    relay_rtt_ms: float | None


def encode_reports(reports: Iterable[PathReport]) -> bytes:
    """The body of a PATH_REPORT; at most MAX_ENTRIES reports."""
    entries = [
        _ENTRY.pack(
            it.seat,
            it.path,
            it.reason,
            round(min(max(it.loss, 0.0), 1.0) * 255),
            *(min(number, _U32_MAX) for number in (it.round_trip, it.relay_round_trip, it.packets, it.bytes)),
        )
        for it in reports
    ]
    return bytes((len(entries),)) + b"".join(entries)


class Reporting:
    """When a player reports, and its last reports about pairs that have ended. Times are in seconds."""

    def __init__(self) -> None:
        self.due: float | None = None  # None: there is nothing to report
        self._reported_at = 0.0
        self._ended: list[PathReport] = []

    def changed(self, now: float) -> None:
        """The path to a peer has changed."""
        self.due = max(now, self._reported_at + MIN_REPORT_INTERVAL)

    def ended(self, report: PathReport, now: float) -> None:
        """The pair is no longer permitted; this is the last report about it."""
        self._ended = [*self._ended[1 - MAX_ENDED :], report]
        self.changed(now)

    def stop(self) -> None:
        """Nothing is reported any more, until the next change."""
        self.due = None

    def take(self, reports: Sequence[PathReport], now: float) -> list[bytes]:
        """The bodies of the PATH_REPORTs to send now, about these pairs and those that have ended."""
        every, self._ended = [*self._ended, *reports], []
        self._reported_at, self.due = now, now + REPORT_INTERVAL if every else None
        return [encode_reports(every[at : at + MAX_ENTRIES]) for at in range(0, len(every), MAX_ENTRIES)]


def decode_reports(body: bytes) -> list[PathReport]:
    """Raises DecodeError "malformed"."""
    if not body or body[0] > MAX_ENTRIES or len(body) != 1 + body[0] * _ENTRY.size:
        raise DecodeError("malformed")
    return [_report(*fields) for fields in _ENTRY.iter_unpack(body[1:])]


def _report(seat: int, path: int, reason: int, loss: int, *numbers: int) -> PathReport:
    if seat >= MAX_SEATS:
        raise DecodeError("malformed")
    try:
        return PathReport(seat, PathKind(path), PathReason(reason), loss / 255, *numbers)
    except ValueError:
        raise DecodeError("malformed") from None

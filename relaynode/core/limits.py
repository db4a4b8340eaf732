"""Rate limits: token buckets in the form of the generic cell rate algorithm (ITU-T I.371), one float for each.

The float is the theoretical arrival time of the next packet. A packet advances it by its cost in seconds; a packet that
would advance it to more than a second from now is over the limit. So each bucket holds one second's worth of packets,
and none needs a timer.
"""

from array import array
from typing import Protocol

from .addresses import Address, source_bytes

BURST = 1.0 + 1e-6
"""One second's worth, and a margin for rounding errors in its many small steps."""


class Quota:
    """The limits of a seat or of a whole session: packets and bytes per second; 0 is no limit.

    Times are seconds since the session began. They are small, so that rounding does not lose one byte's share.
    """

    __slots__ = ("byte_interval", "bytes_at", "packet_interval", "packets_at")

    def __init__(self, packets: int, bytes_: int) -> None:
        self.packets_at = self.bytes_at = 0.0
        self.change(packets, bytes_)

    def change(self, packets: int, bytes_: int) -> None:
        self.packet_interval = 1.0 / packets if packets else 0.0
        self.byte_interval = 1.0 / bytes_ if bytes_ else 0.0


class HasQuota(Protocol):
    quota: Quota


class HasSharedQuota(HasQuota, Protocol):
    began: float


def take(seat: HasQuota, session: HasSharedQuota, size: int, now: float, copies: int = 1) -> bool:
    """Take one packet of `size` bytes from the seat's quota and `copies` of it from the session's quota; nothing from
    either if one of them has too little left.

    Without helper functions, because it runs for every packet.
    """
    seat_quota, session_quota = seat.quota, session.quota
    now -= session.began
    latest = now + BURST
    seat_packets = seat_quota.packets_at
    seat_packets = (seat_packets if seat_packets > now else now) + seat_quota.packet_interval
    seat_bytes = seat_quota.bytes_at
    seat_bytes = (seat_bytes if seat_bytes > now else now) + size * seat_quota.byte_interval
    session_packets = session_quota.packets_at
    session_packets = (session_packets if session_packets > now else now) + copies * session_quota.packet_interval
    session_bytes = session_quota.bytes_at
    session_bytes = (session_bytes if session_bytes > now else now) + copies * size * session_quota.byte_interval
    if seat_packets > latest or seat_bytes > latest or session_packets > latest or session_bytes > latest:
        return False
    seat_quota.packets_at = seat_packets
    seat_quota.bytes_at = seat_bytes
    session_quota.packets_at = session_packets
    session_quota.bytes_at = session_bytes
    return True


SEAT_BURST = 10
"""Rare packets of a seat that may arrive at once: new CONNECTs when a player reconnects on a bad network, and
PATH_REPORTs when many paths change."""


def bucket_after(bucket: float, per_second: int, now: float) -> float | None:
    """The bucket of a seat's rare packets after one more of them; None: it is over the limit."""
    at = max(bucket, now) + 1.0 / per_second
    return at if at <= now + SEAT_BURST / per_second + 1e-6 else None


class SourceLimiter:
    """A limit per second for each source, in constant memory however many sources there are.

    Sources that share a slot share its limit. The hash is keyed, so no source can choose with whom it shares one. It is
    Python's own, SipHash-1-3 with a key per process (PEP 456): floods are dropped here, and a separate keyed hash would
    cost a call more, a fifth of the time.
    """

    SLOTS = 1 << 16

    def __init__(self, per_second: int, key: bytes) -> None:
        self._interval = 1.0 / per_second
        self._burst = 1.0 + self._interval / 2  # half an interval: more than the rounding error of times since 1970
        self._key = key
        self._times = array("d", bytes(8 * self.SLOTS))

    def take(self, addr: Address, now: float, about: int = 0) -> bool:
        """Count one more from `addr`; False: it is over the limit. `about` (32 bits) selects one of several limits
        of the same source."""
        slot = self._slot(addr, about)
        time = self._times[slot]
        time = (time if time > now else now) + self._interval
        if time > now + self._burst:
            return False
        self._times[slot] = time
        return True

    def is_over(self, addr: Address, now: float, about: int = 0) -> bool:
        """Whether one more from `addr` would be over the limit."""
        return max(self._times[self._slot(addr, about)], now) + self._interval > now + self._burst

    def _slot(self, addr: Address, about: int) -> int:
        return hash(self._key + source_bytes(addr) + about.to_bytes(4, "little")) % self.SLOTS


class Budget:
    """A limit per second for all sources together, a twentieth of which may be used at once."""

    def __init__(self, per_second: int) -> None:
        self._interval = 1.0 / per_second
        self._time = 0.0

    def take(self, now: float) -> bool:
        """Use one; False: none is left."""
        time = max(self._time, now) + self._interval
        if time > now + 0.05 + self._interval:
            return False
        self._time = time
        return True


class FloodMeter:
    """Whether more than `per_second` arrive, in the present second or the one before."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._second = self._count = self._before = 0

    def count(self, now: float) -> bool:
        """Count one more; True: this is a flood."""
        second = int(now)
        if second != self._second:
            self._before = self._count if second == self._second + 1 else 0
            self._second, self._count = second, 0
        self._count += 1
        return max(self._count, self._before) > self._per_second

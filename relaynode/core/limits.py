"""How much is too much: token buckets in GCRA form (ITU-T I.371), one float for each.

The float is the time at which the bucket would be empty of debt ("theoretical arrival time"): a packet pushes it
on by its cost in seconds, and one that would push it more than a second ahead of now is over the limit. So
each bucket holds one second's worth, and none needs a timer.
"""

from array import array

from .addresses import Address, source_bytes

BURST = 1.0 + 1e-6
"""One second's worth, and room for the rounding of its many small steps."""


class Quota:
    """What a seat, or a session as a whole, may send: packets and bytes a second; 0 is no limit.

    Times are seconds since the session began: small, so that a byte's share of a second is not lost in rounding.
    """

    __slots__ = ("byte_interval", "bytes_at", "packet_interval", "packets_at")

    def __init__(self, packets: int, bytes_: int) -> None:
        self.packets_at = self.bytes_at = 0.0
        self.change(packets, bytes_)

    def change(self, packets: int, bytes_: int) -> None:
        self.packet_interval = 1.0 / packets if packets else 0.0
        self.byte_interval = 1.0 / bytes_ if bytes_ else 0.0


def take(seat: Quota, session: Quota, size: int, now: float, copies: int = 1) -> bool:
    """Take one packet of `size` bytes out of the seat's quota and its `copies` out of the session's, or nothing out of
    either when one of them has too little.

    Written out flat: it runs for every packet.
    """
    latest = now + BURST
    seat_packets = seat.packets_at
    seat_packets = (seat_packets if seat_packets > now else now) + seat.packet_interval
    seat_bytes = seat.bytes_at
    seat_bytes = (seat_bytes if seat_bytes > now else now) + size * seat.byte_interval
    session_packets = session.packets_at
    session_packets = (session_packets if session_packets > now else now) + copies * session.packet_interval
    session_bytes = session.bytes_at
    session_bytes = (session_bytes if session_bytes > now else now) + copies * size * session.byte_interval
    if seat_packets > latest or seat_bytes > latest or session_packets > latest or session_bytes > latest:
        return False
    seat.packets_at = seat_packets
    seat.bytes_at = seat_bytes
    session.packets_at = session_packets
    session.bytes_at = session_bytes
    return True


SEAT_CONNECTS = 10
"""New CONNECTs of a seat that may come at once: reconnects on a bad network do."""


def connect_at(seat_at: float, per_second: int, now: float) -> float | None:
    """What `seat_at`, the bucket of a seat's CONNECTs, becomes with one more; None: there is no room for it."""
    at = max(seat_at, now) + 1.0 / per_second
    return at if at <= now + SEAT_CONNECTS / per_second + 1e-6 else None


class SourceLimiter:
    """So many a second from one source, in constant memory whatever number of sources there is.

    Sources that share a slot share its limit; the hash is keyed, so nobody can choose whom to share with. It is that of
    Python, SipHash-1-3 of the process (PEP 456): a flood is told off here, and a call less is a fifth of its cost.
    """

    SLOTS = 1 << 16

    def __init__(self, per_second: int, key: bytes) -> None:
        self._interval = 1.0 / per_second
        self._burst = 1.0 + self._interval / 2  # half a turn: times since 1970 are rounded to less than that
        self._key = key
        self._times = array("d", bytes(8 * self.SLOTS))

    def take(self, addr: Address, now: float, about: int = 0) -> bool:
        """Count one more from `addr`; False when it is over the limit. `about`, 32 bits: what the limit is for, when a
        source has one for each of many things."""
        slot = self._slot(addr, about)
        time = self._times[slot]
        time = (time if time > now else now) + self._interval
        if time > now + self._burst:
            return False
        self._times[slot] = time
        return True

    def is_over(self, addr: Address, now: float, about: int = 0) -> bool:
        """Whether one more from `addr` would be too many."""
        return max(self._times[self._slot(addr, about)], now) + self._interval > now + self._burst

    def _slot(self, addr: Address, about: int) -> int:
        return hash(self._key + source_bytes(addr) + about.to_bytes(4, "little")) % self.SLOTS


class Budget:
    """So many a second in all, of which a twentieth may come at once."""

    def __init__(self, per_second: int) -> None:
        self._interval = 1.0 / per_second
        self._time = 0.0

    def take(self, now: float) -> bool:
        """Spend one; False when there is none left."""
        time = max(self._time, now) + self._interval
        if time > now + 0.05 + self._interval:
            return False
        self._time = time
        return True


class FloodMeter:
    """Whether more arrive than `per_second`, in this whole second or the one before."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._second = self._count = self._before = 0

    def count(self, now: float) -> bool:
        """Count one more; True when this is a flood."""
        second = int(now)
        if second != self._second:
            self._before = self._count if second == self._second + 1 else 0
            self._second, self._count = second, 0
        self._count += 1
        return max(self._count, self._before) > self._per_second

"""The end-to-end sequence: a number for all that a player sends to others, by which the receiver removes duplicates
(PROTOCOL.md 12.5)."""

from ..replay_window import ReplayWindow

START_RATE = 62_500  # numbers per second since 1970 at which a new counter starts
MAX_UNAUTHENTICATED_LEAD = 4096  # a node may forge the number of DATA
TOO_OLD_BEFORE_RESET = 64  # consecutive numbers of a source below its window, after which it counts as restarted


class _Source:
    __slots__ = ("authenticated", "is_authenticated", "too_old", "window")

    def __init__(self) -> None:
        self.window = ReplayWindow(ReplayWindow.END_TO_END_SIZE)
        self.authenticated = 0  # the highest number in a packet of the pair
        self.is_authenticated = False
        self.too_old = 0


class EndToEnd:
    """`microseconds`: the time since 1970. A player that restarts goes on above the numbers it has used before."""

    def __init__(self, microseconds: int) -> None:
        self.sent = microseconds * START_RATE // 1_000_000
        self._sources: dict[int, _Source] = {}

    def next(self) -> int:
        """The number of the next packet."""
        self.sent += 1
        return self.sent

    def begin(self, source: int, sequence: int) -> None:
        """A RENDEZVOUS with a new nonce: `source` has used the numbers up to `sequence`."""
        known = self._sources.get(source)
        if known is None or abs(_low_difference(sequence, known.window.highest)) > ReplayWindow.END_TO_END_SIZE:
            known = self._sources[source] = _Source()
        known.window.rebase(sequence)
        known.authenticated = max(sequence, 0)
        known.is_authenticated = True

    def unpair(self, source: int) -> None:
        """There are no packets of the pair any more, so no number of the source is authenticated from now on."""
        if known := self._sources.get(source):
            known.is_authenticated = False

    def forget(self, source: int) -> None:
        """The source has left, and is not reached directly."""
        self._sources.pop(source, None)

    def complete(self, source: int, low: int) -> int:
        """The 64-bit number of a packet of a pair whose low half is `low`. Its tag is still to be verified."""
        known = self._sources.get(source)
        return known.window.complete(low) if known else low

    def accept(self, source: int, number: int) -> bool:
        """Whether a packet of the pair with a valid tag is new; marks it."""
        known = self._sources.get(source)
        if known is None:
            return False
        window = known.window
        if not window.is_new(number):
            return False
        window.mark(number)
        known.authenticated = max(known.authenticated, number)
        return True

    def accept_relayed(self, source: int, low: int) -> bool:
        """Whether DATA over the node is new; marks it. The node may have forged its number."""
        known = self._sources.get(source)
        if known is None:
            known = self._sources[source] = _Source()
            known.window.rebase(low)
            known.window.mark(low)
            return True
        window = known.window
        if low == (window.highest + 1) & 0xFFFFFFFF and not known.is_authenticated:
            window.highest += 1
            window.in_order += 1
            known.too_old = 0
            return True
        number = window.complete(low)
        if known.is_authenticated and number > known.authenticated + MAX_UNAUTHENTICATED_LEAD:
            return True
        if window.is_new(number):
            window.mark(number)
            known.too_old = 0
            return True
        if number <= window.highest - window.size:
            known.too_old += 1
            if known.too_old >= TOO_OLD_BEFORE_RESET and not known.is_authenticated:
                del self._sources[source]
                return self.accept_relayed(source, low)
        return False


def _low_difference(one: int, other: int) -> int:
    """The signed difference of the low halves, modulo 2^32."""
    difference = (one - other) & 0xFFFFFFFF
    return difference - (1 << 32) if difference >= 1 << 31 else difference

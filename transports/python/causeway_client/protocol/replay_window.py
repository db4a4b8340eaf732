"""The replay window of one direction of a connection (PROTOCOL.md 7)."""


class ReplayWindow:
    """The sequence numbers received so far: the highest, and one bit for each of the 1,024 up to it (RFC 4303, A2)."""

    SIZE = 1024
    __slots__ = ("_seen", "highest", "in_order")

    def __init__(self) -> None:
        self.highest = 0
        self.in_order = 0  # numbers up to the highest that arrived in order and are not in `_seen` yet
        self._seen = 1  # bit n: the number highest - in_order - n was received; 0 is never sent

    def complete(self, low: int) -> int:
        """The 64-bit number nearest to the highest one whose low half is `low`."""
        number = (self.highest & ~0xFFFFFFFF) | low
        if number + 0x80000000 < self.highest:
            return number + 0x100000000
        if number > self.highest + 0x80000000 and number >= 0x100000000:
            return number - 0x100000000
        return number

    def is_new(self, number: int) -> bool:
        """Whether `number` may be accepted. Call this and `mark` only after the tag was verified."""
        age = self.highest - number
        if age < 0:
            return True
        self._flush_in_order()
        return age < self.SIZE and not self._seen >> age & 1

    def mark(self, number: int) -> None:
        """Records that a packet with `number` was accepted."""
        ahead = number - self.highest
        if ahead == 1:
            self.highest = number
            self.in_order += 1
            return
        self._flush_in_order()
        if ahead > 0:
            self.highest = number
            self._shift(ahead)
            self._seen |= 1
        else:
            self._seen |= 1 << -ahead

    def _flush_in_order(self) -> None:
        run, self.in_order = self.in_order, 0
        if run:
            self._shift(run)
            self._seen |= (1 << min(run, self.SIZE)) - 1

    def _shift(self, by: int) -> None:
        self._seen = self._seen << by & _WHOLE_WINDOW if by < self.SIZE else 0


_WHOLE_WINDOW = (1 << ReplayWindow.SIZE) - 1

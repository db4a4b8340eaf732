"""The replay window: of one direction of a connection (PROTOCOL.md 7), or of all that a player sends (12.5)."""


class ReplayWindow:
    """The sequence numbers received so far: the highest, and one bit for each of the `size` up to it (RFC 4303, A2)."""

    SIZE = 1024
    END_TO_END_SIZE = 8192
    PACKED_SIZE = 8 + SIZE // 8
    __slots__ = ("_seen", "_whole", "highest", "in_order", "size")

    def __init__(self, size: int = SIZE) -> None:
        self.size = size
        self._whole = (1 << size) - 1
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
        return age < self.size and not self._seen >> age & 1

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

    def rebase(self, number: int) -> None:
        """Sets the high half: of all 64-bit numbers with the low bits of the highest one, takes the one nearest to
        `number`. An empty window begins at `number`, which may still arrive itself."""
        if not self.highest:
            self.highest, self.in_order, self._seen = number, 0, 0
            return
        difference = (self.highest - number) & 0xFFFFFFFF
        self.highest = number + (difference - (1 << 32) if difference >= 1 << 31 else difference)

    def close(self, number: int) -> None:
        """Takes every number up to `number` as received."""
        self.highest, self.in_order, self._seen = number, 0, self._whole

    def packed(self) -> bytes:
        """For `unpack`: PACKED_SIZE bytes, of a window of the usual size."""
        self._flush_in_order()
        return self.highest.to_bytes(8, "little") + self._seen.to_bytes(self.SIZE // 8, "little")

    def unpack(self, packed: bytes) -> None:
        self.highest, self.in_order = int.from_bytes(packed[:8], "little"), 0
        self._seen = int.from_bytes(packed[8:], "little")

    def _flush_in_order(self) -> None:
        run, self.in_order = self.in_order, 0
        if run:
            self._shift(run)
            self._seen |= (1 << min(run, self.size)) - 1

    def _shift(self, by: int) -> None:
        self._seen = self._seen << by & self._whole if by < self.size else 0

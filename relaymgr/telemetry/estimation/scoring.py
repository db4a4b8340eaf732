"""How busy a node is, for placement. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NodeLoad:
    """`cpu`: the busiest worker's share of a core. `age_s`: since the node last answered, None: never."""

    cpu: float
    free_seats: int
    capacity: int
    age_s: float | None = None

    @property
    def filled(self) -> float:
        """0..1 of the seats are taken. A node without seats is full."""
        return 1 - self.free_seats / self.capacity if self.capacity else 1.0

    @property
    def load(self) -> float:
        """0..1: of the scarcer resource. For busy games that is the processor, for idle ones the seats."""
        return min(1.0, max(self.cpu, self.filled))

"""What the core needs from a dialect: something that receives its datagrams, and a binding for each seat that uses it.

A seat always has exactly one binding: that of the dialect in which its player connected last. Forwarding knows bindings
only, so a player's packet leaves in the dialect of the player who receives it.
"""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

from causeway_client.protocol.packets import Notice
from nodeapi.grants import Dialect as DialectName

from ..addresses import Address, Outgoing

if TYPE_CHECKING:
    from ..seats import Seat


__all__ = ["Binding", "Dialect", "DialectName", "Quality"]


class Quality(NamedTuple):
    """The measured quality of the leg between a player and the node."""

    rtt_ms: float | None  # None: the dialect cannot measure it
    jitter_ms: float
    loss: float  # 0.0 to 1.0, of both directions


class Binding(ABC):
    """How the player of a seat is reached in one dialect."""

    __slots__ = ()
    dialect: ClassVar[DialectName]

    @property
    def is_proven(self) -> bool:
        """Whether the player has shown that it receives what is sent to the seat's address."""
        return True

    @property
    @abstractmethod
    def quality(self) -> Quality | None:
        """None: not enough is known yet."""

    @abstractmethod
    def encode(self, source: "Seat", payload: bytes, now: float) -> bytes | None:
        """The datagram that delivers the payload of `source` to this player; None: the dialect does not allow it."""

    def encode_signal(self, kind: int, source: "Seat", body: bytes) -> bytes | None:
        """The datagram that delivers a SIGNAL, RENDEZVOUS or PEER of `source`; None: the dialect has none."""
        return None

    def encode_notice(self, about: int, notice: Notice) -> bytes | None:
        """The datagram that delivers a NOTICE about a seat; None: the dialect has no NOTICE."""
        return None

    def mode_became_stricter(self) -> None:
        """The seat's direct mode has become stricter."""
        return

    def may_report_over_limit(self, now: float) -> bool:
        """Whether the player is notified now that a packet of its own was over a limit: at most once per second."""
        return False

    def on_address_change(self, now: float) -> None:
        """The player is about to be bound to another address."""
        return


class Dialect(Protocol):
    """The receiving side of a dialect: one object for each Relay."""

    def receive(self, data: bytes, size: int, addr: Address, port: int, now: float) -> Outgoing | None:
        """A datagram in this dialect that arrived from `addr` at our `port`: what to send in return, if anything."""

"""What the pair of two players needs from outside: settings of the game, and ways to send."""

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from .candidates import IpPort
from .end_to_end import EndToEnd
from .path_selection import Choice
from .rendezvous import Candidate, NatClass

if TYPE_CHECKING:
    from .peer import Peer

Address = Hashable


@dataclass(frozen=True, slots=True)
class DirectSettings:
    """What a game decides about direct paths. `relay_bias_ms` is added to the measured round trip of the relay.
    `hard_nats`: further ports may be probed if a NAT assigns one to each destination (PROTOCOL.md 12.8).
    `port_mapping`: the router may be asked to map a port (PCP, NAT-PMP)."""

    relay_bias_ms: float = 10.0
    hard_nats: bool = True
    port_mapping: bool = True


class Wire(Protocol):
    """What a peer sends with. `relay` returns False if there is no connection to the node."""

    seat: int
    numbers: EndToEnd
    dropped: Counter[str]
    awaits_second_address: bool  # the node does not add it to RENDEZVOUS yet
    is_suspended: bool  # the node has been silent for longer than the direct grace: only the relay may be used
    random: Callable[[int], bytes]

    def relay(self, kind: int, seat: int, body: bytes) -> bool: ...
    def direct(self, datagram: bytes, address: Address) -> None: ...
    def candidates(self) -> tuple[Candidate, ...]: ...
    def nat(self) -> tuple[NatClass, int]: ...
    def nat_expected_until(self, now: float) -> float | None: ...  # when it will be known; None: it will not change
    def extra_sockets(
        self,
    ) -> int: ...  # has the adapter open them; how many. They are in addresses (ip, port, number).
    def own_observed(self) -> list[IpPort]: ...
    def path_changed(self, peer: "Peer", choice: Choice) -> None: ...

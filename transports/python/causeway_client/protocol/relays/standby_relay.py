"""The credentials of a standby relay (PROTOCOL.md 14.1)."""

from collections.abc import Hashable
from dataclasses import dataclass

Address = Hashable


@dataclass(frozen=True, slots=True)
class StandbyRelay:
    """Where the standby relay is reached, and the token for it. `second_node`: its address in the other family."""

    node: Address
    connect_token: bytes
    second_node: Address | None = None

    def __repr__(self) -> str:
        return f"StandbyRelay({self.node!r})"  # without the token

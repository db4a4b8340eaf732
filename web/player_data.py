"""Where applications keep data of players, so that all of one player's can be handed out or erased in one call.

An application registers its store when it is loaded. The caller needs to know none of them: manager and matchmaker do
not import each other.
"""

from typing import Any, Protocol


class PlayerStore(Protocol):
    def player_export(self, *, tenant: str, player_id: str = "", ip: str = "") -> dict[str, Any]:
        """Everything that is kept, JSON serialisable, under names that no other store uses."""

    def player_erase(self, *, tenant: str, player_id: str = "", ip: str = "") -> int:
        """How many rows were deleted or emptied."""


stores: list[PlayerStore] = []

"""A registry of where applications store data about players, so that one call can export or erase all data of a player.

An application registers its store in `AppConfig.ready`. Callers do not need to import the applications.
"""

from typing import Any, Protocol


class PlayerStore(Protocol):
    def player_export(self, *, tenant: str, player_id: str = "", ip: str = "") -> dict[str, Any]:
        """All stored data of the player as JSON-serialisable values, under keys that no other store uses."""

    def player_erase(self, *, tenant: str, player_id: str = "", ip: str = "") -> int:
        """Returns the number of rows that were deleted or cleared."""


stores: list[PlayerStore] = []

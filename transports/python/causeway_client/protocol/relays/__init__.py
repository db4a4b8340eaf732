"""The legs of a player to one or two relays (PROTOCOL.md 14)."""

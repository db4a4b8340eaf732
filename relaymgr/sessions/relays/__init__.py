"""The relays of a session: the standby relay, what follows when a relay fails, and moves (PROTOCOL.md 14)."""

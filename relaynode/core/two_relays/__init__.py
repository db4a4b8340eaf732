"""Sessions with two relays, node's side (PROTOCOL.md 14)."""

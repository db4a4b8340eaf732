"""Paths between two players: over the relay, and direct ones (PROTOCOL.md 12). Sans-I/O."""

"""Wire formats a seat may speak: bytes <-> (seat, target, payload)."""

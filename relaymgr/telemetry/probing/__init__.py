"""A round of probes: what nodes report, and what of it the manager accepts."""

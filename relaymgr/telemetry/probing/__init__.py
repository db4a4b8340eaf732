"""A round of probes: what nodes report, and which parts the manager accepts."""

"""Phrases that several commands and pages use."""


def counted(count: float, noun: str) -> str:
    """1 hour, 2 hours, 1,200 nodes."""
    return f"{count:,g} {noun}" if count == 1 else f"{count:,g} {noun}s"

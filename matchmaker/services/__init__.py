"""Writes that callers ask for. What happens in the background is in `background`."""

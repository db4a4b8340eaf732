"""What players' games install: the native protocol and the adapters that speak it."""

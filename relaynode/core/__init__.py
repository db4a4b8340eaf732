"""The relay as a sans-I/O machine: bytes and times in, bytes out. No sockets, no clock, no asyncio."""

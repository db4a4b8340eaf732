"""The wire, sans-I/O: PROTOCOL.md in code. No sockets, no clocks, the standard library only."""

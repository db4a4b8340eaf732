"""The native protocol of PROTOCOL.md, sans-I/O: no sockets and no clocks, and the standard library only."""

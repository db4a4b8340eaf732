"""What connects the machines of `protocol` with sockets, clocks and event loops."""

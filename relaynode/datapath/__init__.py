"""From the network interface to the core and back: sockets, batched reads and writes, and the XDP program."""

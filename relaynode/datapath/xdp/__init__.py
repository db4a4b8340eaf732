"""The XDP path: an eBPF program that forwards packets of known seats before they reach a socket."""

"""The NAT lab: real programs behind real NATs, on one Linux machine.

It builds an Internet of network namespaces, with NATs made by nftables and a wire in user space that delays and loses
packets, and plays pairs of players there. `make nat-lab` measures which pairs reach each other directly and how fast;
tests use `lab.Lab` as a network to play in. See docs/nat-lab.md.
"""

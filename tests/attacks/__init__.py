"""Attacks on a real stack, and what they cost the players of another tenant: `make attack`.

`arena` starts the stack, `bystander` is the tenant that must not notice, `attackers` holds one function per attack,
and `__main__` runs them in turn and prints the table of docs/results/attacks.md.
"""

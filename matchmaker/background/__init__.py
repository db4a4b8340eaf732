"""The work of the matchmaker's processes: passes over pools, sessions for matches, and the removal of what has ended.

All state is in rows, and every change is a conditional UPDATE or made under a row lock, so that any number of processes
work side by side and each may fail at any point. A pass reads and computes without a lock, and claims its tickets in
one short transaction. When a process stops moving a match forward, another takes the match over as soon as its claim
has expired, and repeats the request for its session under the same Idempotency-Key.

Whatever a tenant or a player submitted, its failure is contained: a version whose pass fails is suspended for a period
that doubles, a match that cannot be moved forward is retried and then abandoned, and every pass has a budget.
"""

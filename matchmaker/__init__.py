"""The matchmaker: tickets in, matches out. It is a client of the manager's REST API like any other."""

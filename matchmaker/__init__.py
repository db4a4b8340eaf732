"""The matchmaker: tickets in, matches out. A client of the manager's REST API like any other."""

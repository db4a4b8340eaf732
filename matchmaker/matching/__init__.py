"""Waiting tickets in, matches out. Pure: no database, no clock."""

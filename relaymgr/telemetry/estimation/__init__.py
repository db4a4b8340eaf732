"""Estimates of round-trip times from measurements. Pure: no database, no clock."""

"""Logs, metrics and traces of every process. This package imports no other package of this project."""

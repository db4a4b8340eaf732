"""What telemetry announces to the applications that are built on it."""

from django.dispatch import Signal

paths_changed = Signal()  # `changes`: PathChange, in order; sent inside the transaction that stores them
events_stored = Signal()  # nodes' events were stored; sent inside the transaction that stores them

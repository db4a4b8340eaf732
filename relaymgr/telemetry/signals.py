"""What telemetry announces to the applications that are built on it."""

from django.dispatch import Signal

events_stored = Signal()  # nodes' events were stored; sent inside the transaction that stores them

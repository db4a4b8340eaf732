"""Webhooks: a row for each delivery, dispatch, sending, and a circuit breaker for each endpoint."""

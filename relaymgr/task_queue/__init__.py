"""Celery's broker, schedule and metrics."""

"""The ways in which an action reaches the manager, without models: every app may import them."""

from django.db import models


class Via(models.TextChoices):
    ADMIN = "admin"
    RELAYCTL = "relayctl"
    COMMAND = "command", "manage.py"
    API = "api", "REST API"
    MANAGER = "manager", "the manager itself"

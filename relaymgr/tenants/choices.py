"""Choices of the models, without models: every app may import them."""

from django.db import models


class PlayerAddresses(models.TextChoices):
    """Which data about the locations of players an ended session keeps."""

    TRUNCATE = "truncate", "truncate: the network (/24, /48) and whole degrees"
    REMOVE = "remove", "remove: nothing"
    KEEP = "keep", "keep: everything, for as long as the session is kept"


class DirectMode(models.TextChoices):
    """Whether players may exchange packets without the relay, which shows their addresses to each other (PROTOCOL.md
    12.6). From the strictest to the least strict."""

    RELAY_ONLY = "relay_only", "relay_only: never"
    ASK = "ask", "ask: once the player has agreed"
    DIRECT = "direct", "direct: whenever it is possible"

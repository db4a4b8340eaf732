"""Choices of the models, without models: every app may import them."""

from django.db import models


class PlayerAddresses(models.TextChoices):
    """Which data about the locations of players an ended session keeps."""

    TRUNCATE = "truncate", "truncate: the network (/24, /48) and whole degrees"
    REMOVE = "remove", "remove: nothing"
    KEEP = "keep", "keep: everything, for as long as the session is kept"

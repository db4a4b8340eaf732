"""Enumerations and limits of nodes, without models: every app may import them."""

from django.db import models


class NodeState(models.TextChoices):
    """joining -> ready -> suspect -> lost, by its probes; an answered probe makes a node ready from any state."""

    JOINING = "joining"
    READY = "ready"
    SUSPECT = "suspect"
    LOST = "lost"


DRAINING = "draining"  # a status beside the states
MAX_JOIN_KEY_USES = 10_000


class IncidentKind(models.TextChoices):
    """What a node does that a correct node never does."""

    DUPLICATE = "duplicate", "a second process runs with its identity"
    NOT_GRANTED = "not_granted", "it reports on sessions or seats that it was not granted"
    OVER_BUDGET = "over_budget", "it reports more events than are taken in"
    OUTLIER = "outlier", "its measurements contradict those of players or of other nodes"

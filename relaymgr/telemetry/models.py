"""What nodes report, and the lease that keeps a round from overlapping itself."""

from django.db import models

from relaymgr.nodes.models import RelayNode


class NodeSample(models.Model):
    """One probe of one node."""

    node = models.ForeignKey(RelayNode, models.CASCADE, related_name="samples")
    at = models.DateTimeField(db_index=True)
    probe_ms = models.FloatField(help_text="How long the node took to answer the probe.")
    cpu = models.FloatField()
    sessions = models.PositiveIntegerField()
    seats = models.PositiveIntegerField()
    connected = models.PositiveIntegerField()
    counters = models.JSONField(default=dict, help_text="Summed over the workers; they only grow, per boot.")

    class Meta:
        ordering = ["-at"]
        indexes = [models.Index(fields=["node", "-at"], name="node_sample_node_at")]


class LegSample(models.Model):
    """The quality of one player's leg to one node, as the node measured it."""

    node = models.ForeignKey(RelayNode, models.CASCADE, related_name="leg_samples")
    session_id = models.CharField(max_length=20)
    seat = models.PositiveSmallIntegerField()
    at = models.DateTimeField(db_index=True)
    rtt_ms = models.FloatField()
    jitter_ms = models.FloatField()
    loss = models.FloatField(help_text="0..1")

    class Meta:
        ordering = ["-at"]
        indexes = [models.Index(fields=["session_id", "seat", "-at"], name="leg_sample_seat_at")]


class Lease(models.Model):
    """Who runs a periodic task now. Taken by a conditional UPDATE, so it works on every database."""

    name = models.CharField(max_length=50, primary_key=True)
    owner = models.CharField(max_length=40, blank=True)
    until = models.DateTimeField()


class NodeEvent(models.Model):
    """Something a node told us of a session. A row until the sessions app has acted on it, then deleted:
    a worker that dies half-way loses nothing."""

    node = models.ForeignKey(RelayNode, models.CASCADE, related_name="events")
    boot_id = models.CharField(max_length=40)
    number = models.PositiveBigIntegerField()
    at = models.DateTimeField()
    session_id = models.CharField(max_length=20)
    seat = models.PositiveSmallIntegerField(null=True)
    kind = models.CharField(max_length=30)
    dialect = models.CharField(max_length=10, blank=True)
    reason = models.CharField(max_length=50, blank=True)

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["node", "boot_id", "number"], name="node_event_unique")]

"""What nodes report, and the lease that keeps a round from overlapping itself."""

from django.db import models
from django.db.models.functions import Now


class NodeSample(models.Model):
    """One probe of one node."""

    node = models.ForeignKey("nodes.RelayNode", models.CASCADE, related_name="samples")
    at = models.DateTimeField(db_index=True)
    probe_ms = models.FloatField(help_text="How long the node took to answer the probe.")
    cpu = models.FloatField()
    sessions = models.PositiveIntegerField()
    seats = models.PositiveIntegerField()
    connected = models.PositiveIntegerField()
    counters = models.JSONField(default=dict, help_text="Summed over the workers; they only grow, per boot.")
    legs = models.PositiveIntegerField(default=0, db_default=0, help_text="Players' legs that the node told of.")
    leg_rtt_ms = models.FloatField(null=True, help_text="The median of the legs. Empty: none tells.")
    leg_rtt_p90_ms = models.FloatField(null=True, help_text="Nine in ten are shorter.")
    leg_loss = models.FloatField(null=True, help_text="Mean of the legs, 0..1.")

    class Meta:
        ordering = ["-at"]
        indexes = [models.Index(fields=["node", "-at"], name="node_sample_node_at")]


class LegSample(models.Model):
    """The quality of one player's leg to one node, as the node measured it."""

    node = models.ForeignKey("nodes.RelayNode", models.CASCADE, related_name="leg_samples")
    session_id = models.CharField(max_length=20)
    seat = models.PositiveSmallIntegerField()
    at = models.DateTimeField(db_index=True)
    rtt_ms = models.FloatField(null=True, help_text="Empty: the edgegap dialect does not tell.")
    jitter_ms = models.FloatField()
    loss = models.FloatField(help_text="0..1")

    class Meta:
        ordering = ["-at"]
        indexes = [models.Index(fields=["session_id", "seat", "-at"], name="leg_sample_seat_at")]


class NodeSummary(models.Model):
    """The samples of a node over a minute or an hour, once they are too old to be kept one by one."""

    node = models.ForeignKey("nodes.RelayNode", models.CASCADE, related_name="summaries")
    seconds = models.PositiveIntegerField(choices=[(60, "minute"), (3600, "hour")])
    at = models.DateTimeField(help_text="Where the span begins.")
    samples = models.PositiveIntegerField()
    probe_ms = models.FloatField(help_text="Mean.")
    cpu = models.FloatField(help_text="Mean.")
    cpu_max = models.FloatField()
    sessions_max = models.PositiveIntegerField()
    seats_max = models.PositiveIntegerField()
    connected_max = models.PositiveIntegerField()
    grown = models.JSONField(
        default=dict,
        db_default=models.Value({}, models.JSONField()),
        help_text="By how much each counter grew over the span; those that did.",
    )
    legs_max = models.PositiveIntegerField(default=0, db_default=0)
    leg_rtt_ms = models.FloatField(null=True, help_text="Mean of the medians.")
    leg_rtt_p90_ms = models.FloatField(null=True, help_text="Mean of what nine in ten legs are shorter than.")
    leg_loss = models.FloatField(null=True, help_text="Mean, 0..1.")

    class Meta:
        ordering = ["-at"]
        verbose_name_plural = "node summaries"
        constraints = [models.UniqueConstraint(fields=["node", "seconds", "at"], name="node_summary_unique")]
        indexes = [models.Index(fields=["seconds", "at"], name="node_summary_seconds_at")]


class PrefixLeg(models.Model):
    """What is remembered of the legs between the addresses of one prefix and a node."""

    prefix = models.CharField(max_length=43, help_text="/24 of IPv4, /48 of IPv6.")
    node = models.ForeignKey("nodes.RelayNode", models.CASCADE, related_name="prefix_legs")
    at = models.DateTimeField(db_index=True, help_text="Of the last sample.")
    ms = models.FloatField()
    jitter_ms = models.FloatField()
    loss = models.FloatField(help_text="0..1")
    players = models.PositiveSmallIntegerField(
        default=1, db_default=1, help_text="How many players measured it. The figures are their medians."
    )
    by_player = models.JSONField(
        default=dict,
        db_default=models.Value({}, models.JSONField()),
        help_text="{a player's hash: [ms, jitter ms, loss, seconds since 1970]}, of the last few.",
    )

    class Meta:
        ordering = ["-at"]
        constraints = [models.UniqueConstraint(fields=["prefix", "node"], name="prefix_leg_unique")]

    def __str__(self) -> str:
        return f"{self.prefix} {self.node}"


class PeerLegs(models.Model):
    """What one node measured to all others: a row a node, or a thousand nodes would make a million rows."""

    node = models.OneToOneField("nodes.RelayNode", models.CASCADE, related_name="peer_legs")
    at = models.DateTimeField()
    legs = models.JSONField(help_text="{node: [ms, jitter ms, loss of small packets, loss of large ones]}")

    class Meta:
        verbose_name_plural = "peer legs"


class StoredLatencyModel(models.Model):
    """What was learnt from all samples (`estimation.LatencyModel`). One row: the last."""

    at = models.DateTimeField()
    document = models.JSONField()

    class Meta:
        verbose_name_plural = "stored latency models"


class Lease(models.Model):
    """Who runs a periodic task now. Taken by a conditional UPDATE, so it works on every database."""

    name = models.CharField(max_length=50, primary_key=True)
    owner = models.CharField(max_length=40, blank=True)
    until = models.DateTimeField()


class NodeEvent(models.Model):
    """Something a node told us of a session. A row until the sessions app has acted on it, then deleted:
    a worker that dies half-way loses nothing."""

    node = models.ForeignKey("nodes.RelayNode", models.CASCADE, related_name="events")
    boot_id = models.CharField(max_length=40)
    number = models.PositiveBigIntegerField()
    at = models.DateTimeField(help_text="By the node, within the last day.")
    stored_at = models.DateTimeField(db_default=Now(), db_index=True, editable=False)
    session_id = models.CharField(max_length=20)
    seat = models.PositiveSmallIntegerField(null=True)
    kind = models.CharField(max_length=30)
    dialect = models.CharField(max_length=10, blank=True)
    reason = models.CharField(max_length=50, blank=True)

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["node", "boot_id", "number"], name="node_event_unique")]


class ProcessExit(models.Model):
    """A supervised process that ended unasked and was started again."""

    supervisor = models.CharField(max_length=50, help_text="What started it again: `manage.py up`, or a node by name.")
    process = models.CharField(max_length=50)
    boot_id = models.CharField(max_length=40, help_text="Of the run of the supervisor.")
    number = models.PositiveBigIntegerField(help_text="Counts the exits of the process in that run.")
    at = models.DateTimeField(db_index=True)
    status = models.IntegerField(
        null=True, help_text="Negative: the signal that ended it. Empty: it could not be started."
    )
    uptime_s = models.FloatField(help_text="Seconds it had run.")

    class Meta:
        ordering = ["-at"]
        constraints = [
            models.UniqueConstraint(fields=["supervisor", "boot_id", "process", "number"], name="process_exit_unique")
        ]

    def __str__(self) -> str:
        return f"{self.supervisor}: {self.process}"

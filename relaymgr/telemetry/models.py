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
    counters = models.JSONField(default=dict, help_text="Sums over the workers; they only grow until a restart.")
    legs = models.PositiveIntegerField(default=0, db_default=0, help_text="How many legs of players the node reported.")
    leg_rtt_ms = models.FloatField(null=True, help_text="Median of the legs. Empty: none has a round trip.")
    leg_rtt_p90_ms = models.FloatField(null=True, help_text="90th percentile of the legs.")
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
    rtt_ms = models.FloatField(null=True, help_text="Empty: the edgegap dialect cannot measure it.")
    jitter_ms = models.FloatField()
    loss = models.FloatField(help_text="0..1")

    class Meta:
        ordering = ["-at"]
        indexes = [models.Index(fields=["session_id", "seat", "-at"], name="leg_sample_seat_at")]


class PeerPath(models.Model):
    """The path on which the player of a seat sends to a peer, as the player reported it last. One row for each ordered
    pair of seats (`probing.path_state`)."""

    node = models.ForeignKey("nodes.RelayNode", models.CASCADE, related_name="peer_paths")
    session_id = models.CharField(max_length=20)
    seat = models.PositiveSmallIntegerField()
    peer = models.PositiveSmallIntegerField()
    at = models.DateTimeField(db_index=True, help_text="When it was last reported.")
    since = models.DateTimeField(help_text="When the path became this one.")
    path = models.CharField(max_length=20)
    reason = models.CharField(max_length=20, help_text="Why it became this one.")
    rtt_ms = models.FloatField(null=True, help_text="From player to player. Empty: not measured.")
    relay_rtt_ms = models.FloatField(null=True, help_text="The same over the relay.")
    loss = models.FloatField(help_text="0..1")
    packets = models.PositiveBigIntegerField(help_text="Sent on direct paths so far.")
    bytes = models.PositiveBigIntegerField(help_text="The same, in UDP payload.")
    changes = models.PositiveBigIntegerField(help_text="Of the path or its reason so far.")
    unannounced = models.PositiveIntegerField(help_text="Changes that the timeline does not contain yet.")
    announce_after = models.DateTimeField(null=True)
    sampled_at = models.DateTimeField(null=True)
    sampled = models.CharField(max_length=50, help_text="Path and reason of the last sample.")

    class Meta:
        ordering = ["session_id", "seat", "peer"]
        constraints = [models.UniqueConstraint(fields=["session_id", "seat", "peer"], name="peer_path_unique")]


class PathSample(models.Model):
    """The path of a player to a peer at one time: the history of PeerPath."""

    node = models.ForeignKey("nodes.RelayNode", models.CASCADE, related_name="path_samples")
    session_id = models.CharField(max_length=20)
    seat = models.PositiveSmallIntegerField()
    peer = models.PositiveSmallIntegerField()
    at = models.DateTimeField(db_index=True)
    path = models.CharField(max_length=20)
    reason = models.CharField(max_length=20)
    rtt_ms = models.FloatField(null=True)
    relay_rtt_ms = models.FloatField(null=True)
    loss = models.FloatField(help_text="0..1")
    packets = models.PositiveBigIntegerField(help_text="Sent on direct paths until then.")
    bytes = models.PositiveBigIntegerField(help_text="The same, in UDP payload.")

    class Meta:
        ordering = ["-at"]
        indexes = [models.Index(fields=["session_id", "-at"], name="path_sample_session_at")]


class NodeSummary(models.Model):
    """The samples of a node over a minute or an hour, kept for longer than the samples themselves."""

    node = models.ForeignKey("nodes.RelayNode", models.CASCADE, related_name="summaries")
    seconds = models.PositiveIntegerField(choices=[(60, "minute"), (3600, "hour")])
    at = models.DateTimeField(help_text="Start of the span.")
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
        help_text="How much each counter grew over the span.",
    )
    legs_max = models.PositiveIntegerField(default=0, db_default=0)
    leg_rtt_ms = models.FloatField(null=True, help_text="Mean of the medians.")
    leg_rtt_p90_ms = models.FloatField(null=True, help_text="Mean of the 90th percentiles.")
    leg_loss = models.FloatField(null=True, help_text="Mean, 0..1.")

    class Meta:
        ordering = ["-at"]
        verbose_name_plural = "node summaries"
        constraints = [models.UniqueConstraint(fields=["node", "seconds", "at"], name="node_summary_unique")]
        indexes = [models.Index(fields=["seconds", "at"], name="node_summary_seconds_at")]


class PrefixLeg(models.Model):
    """The typical leg between the addresses of one prefix and a node."""

    prefix = models.CharField(max_length=43, help_text="/24 of IPv4, /48 of IPv6.")
    node = models.ForeignKey("nodes.RelayNode", models.CASCADE, related_name="prefix_legs")
    at = models.DateTimeField(db_index=True, help_text="When the last sample was measured.")
    ms = models.FloatField()
    jitter_ms = models.FloatField()
    loss = models.FloatField(help_text="0..1")
    players = models.PositiveSmallIntegerField(
        default=1, db_default=1, help_text="How many players measured the leg. The figures are their medians."
    )
    by_player = models.JSONField(
        default=dict,
        db_default=models.Value({}, models.JSONField()),
        help_text="{a player's hash: [ms, jitter ms, loss, seconds since 1970]}, of the last few players.",
    )

    class Meta:
        ordering = ["-at"]
        constraints = [models.UniqueConstraint(fields=["prefix", "node"], name="prefix_leg_unique")]

    def __str__(self) -> str:
        return f"{self.prefix} {self.node}"


class PeerLegs(models.Model):
    """What one node measured to all others. One row per node: a row per pair would be a million rows for a thousand
    nodes."""

    node = models.OneToOneField("nodes.RelayNode", models.CASCADE, related_name="peer_legs")
    at = models.DateTimeField()
    legs = models.JSONField(help_text="{node: [ms, jitter ms, loss of small packets, loss of large ones]}")

    class Meta:
        verbose_name_plural = "peer legs"


class StoredLatencyModel(models.Model):
    """The latency model that was fitted to all samples (`estimation.estimates.LatencyModel`). One row: the last."""

    at = models.DateTimeField()
    document = models.JSONField()

    class Meta:
        verbose_name_plural = "stored latency models"


class Lease(models.Model):
    """Which process runs a periodic task now. Acquired by a conditional UPDATE, which works on every database."""

    name = models.CharField(max_length=50, primary_key=True)
    owner = models.CharField(max_length=40, blank=True)
    until = models.DateTimeField()


class NodeEvent(models.Model):
    """An event of a session that a node reported. The sessions app deletes the row in the transaction that applies the
    event, so that a worker that dies loses none."""

    node = models.ForeignKey("nodes.RelayNode", models.CASCADE, related_name="events")
    boot_id = models.CharField(max_length=40)
    number = models.PositiveBigIntegerField()
    at = models.DateTimeField(help_text="By the node's clock, within the last day.")
    stored_at = models.DateTimeField(db_default=Now(), db_index=True, editable=False)
    session_id = models.CharField(max_length=20)
    seat = models.PositiveSmallIntegerField(null=True)
    kind = models.CharField(max_length=30)
    dialect = models.CharField(max_length=10, blank=True)
    reason = models.CharField(max_length=50, blank=True)
    gap_ms = models.PositiveIntegerField(
        default=0, db_default=0, help_text="relay_changed: for how long the player received nothing; 0: not known."
    )

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["node", "boot_id", "number"], name="node_event_unique")]


class ProcessExit(models.Model):
    """A supervised process that ended unexpectedly and was restarted."""

    supervisor = models.CharField(max_length=50, help_text="What restarted it: `manage.py up`, or the name of a node.")
    process = models.CharField(max_length=50)
    boot_id = models.CharField(max_length=40, help_text="Identifies the run of the supervisor.")
    number = models.PositiveBigIntegerField(help_text="Counts the exits of the process in that run.")
    at = models.DateTimeField(db_index=True)
    status = models.IntegerField(
        null=True, help_text="Negative: the signal that ended it. Empty: it could not be started."
    )
    uptime_s = models.FloatField(help_text="Seconds for which it had run.")

    class Meta:
        ordering = ["-at"]
        constraints = [
            models.UniqueConstraint(fields=["supervisor", "boot_id", "process", "number"], name="process_exit_unique")
        ]

    def __str__(self) -> str:
        return f"{self.supervisor}: {self.process}"

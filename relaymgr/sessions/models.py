"""Relay sessions, their seats, and what happened to them."""

import secrets

from django.contrib.postgres.indexes import GinIndex
from django.db import models
from django.utils import timezone

from relaymgr.nodes.locations.address_families import needed_family
from relaymgr.nodes.models import Location, RelayNode, RelayWorker
from relaymgr.tenants.models import Tenant
from web.database.encryption import EncryptedTextField


def new_session_id() -> str:
    """Edgegap's form (EDGEGAP.md 3.4): 12 lowercase hexadecimal digits and "-S"."""
    return secrets.token_hex(6) + "-S"


class SessionState(models.TextChoices):
    """requested -> placed -> ready -> ended | failed (design: session life)."""

    REQUESTED = "requested"
    PLACED = "placed"
    READY = "ready"
    ENDED = "ended"
    FAILED = "failed"


LIVE_STATES = (SessionState.REQUESTED, SessionState.PLACED, SessionState.READY)


class RelaySession(models.Model):
    """Two or more players who are to reach each other through one worker of one node."""

    id = models.CharField(primary_key=True, max_length=20, default=new_session_id)
    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="relay_sessions")
    state = models.CharField(max_length=10, choices=SessionState, default=SessionState.REQUESTED)
    worker = models.ForeignKey(RelayWorker, models.SET_NULL, null=True, related_name="relay_sessions")
    topology = models.CharField(max_length=4, choices=[("host", "host"), ("mesh", "mesh")], default="host")
    objective = models.CharField(
        max_length=6, choices=[("worst", "worst"), ("sum", "sum"), ("spread", "spread")], default="worst"
    )
    dialects = models.JSONField(default=list)
    token = EncryptedTextField(editable=False, help_text="32-bit token of the edgegap dialect.")
    filters = models.JSONField(default=list, blank=True)
    constraints = models.JSONField(
        default=dict, blank=True, help_text='Asked for: {"pin": [...], "ban": ..., "prefer": ...}.'
    )
    metadata = models.JSONField(default=dict, blank=True)
    webhook_url = models.URLField(blank=True, max_length=500)
    limits = models.JSONField(
        default=dict, help_text='A second\'s worth: {"seat": {"packets", "bytes"}, "session": ...}.'
    )
    idle_timeout = models.PositiveIntegerField(help_text="Seconds.")
    created_at = models.DateTimeField(auto_now_add=True)
    ready_at = models.DateTimeField(null=True, blank=True)
    expires_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)
    end_reason = models.CharField(max_length=50, blank=True, help_text="Also why it failed.")
    placement = models.JSONField(default=dict, blank=True, help_text="The explanation served at /placement.")
    minimised_at = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="When it kept no more of its players than its tenant allows."
    )
    reevaluated_at = models.DateTimeField(null=True, blank=True, editable=False)
    better_relay = models.JSONField(
        default=dict, blank=True, help_text='Another node is better by now: {"node", "location", "gain_ms", "since"}.'
    )

    active_seats: "list[Seat]"  # where `selectors.with_details` read it: those that are not revoked, in order

    class Meta:
        indexes = [
            models.Index(fields=["tenant", "state", "-created_at"], name="session_tenant_state_created"),
            models.Index(fields=["state", "expires_at"], name="session_state_expires"),
            # Of live sessions only, who are few beside those kept. The list, newest first: with all that it counts and
            # skips by, so that no row has to be fetched for that.
            models.Index(
                fields=["tenant", "-created_at", "id", "state", "worker"],
                condition=models.Q(state__in=("requested", "placed", "ready")),
                name="session_live_newest",
            ),
            # On SQLite an ordinary index that nothing uses.
            GinIndex(fields=["metadata"], opclasses=["jsonb_path_ops"], name="session_metadata"),
            models.Index(fields=["-created_at", "id"], name="session_recent"),
            models.Index(
                fields=["ended_at"],
                condition=models.Q(minimised_at=None, state__in=("ended", "failed")),
                name="session_to_minimise",
            ),
        ]
        ordering = ["-created_at", "id"]

    def __str__(self) -> str:
        return self.id

    @property
    def is_ready(self) -> bool:
        return self.state == SessionState.READY

    @property
    def is_linked(self) -> bool:
        """A node has been assigned, and still is."""
        return self.state in (SessionState.PLACED, SessionState.READY) and self.worker is not None


class Seat(models.Model):
    """A player's place in a session. Numbers are never used again; seat 0 is the host."""

    session = models.ForeignKey(RelaySession, models.CASCADE, related_name="seats")
    number = models.PositiveSmallIntegerField()
    player_id = models.CharField(max_length=64, blank=True)
    ip = models.GenericIPAddressField(null=True, blank=True)
    address_family = models.CharField(
        max_length=4, blank=True, help_text="Asked for: ipv4, ipv6 or any. Empty: that of the address."
    )
    latitude = models.FloatField(null=True, blank=True)
    longitude = models.FloatField(null=True, blank=True)
    latencies = models.JSONField(default=dict, blank=True, help_text="{location or node: milliseconds}")
    measurements = models.JSONField(
        default=dict,
        blank=True,
        help_text="Counts: {node or location: [ms, jitter ms, loss, seconds since 1970]}",
    )
    token = EncryptedTextField(editable=False, help_text="32-bit token of the edgegap dialect.")
    seat_key = EncryptedTextField(editable=False, help_text="Base64url, 32 bytes: the key of the native dialect.")
    connect_token = EncryptedTextField(editable=False, default="", help_text="Base64url; sealed once a node is chosen.")
    is_connected = models.BooleanField(default=False)
    dialect = models.CharField(max_length=10, blank=True)
    # seat_reports.py
    reported_connected = models.BooleanField(default=False, editable=False)
    report_after = models.DateTimeField(null=True, blank=True, editable=False)
    unreported_changes = models.PositiveIntegerField(default=0, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["session", "number"]
        constraints = [models.UniqueConstraint(fields=["session", "number"], name="seat_number_unique")]
        indexes = [
            models.Index(fields=["player_id"], name="seat_player"),
            models.Index(fields=["ip"], name="seat_ip"),
            models.Index(fields=["report_after"], condition=models.Q(unreported_changes__gt=0), name="seat_unreported"),
        ]

    relay_ips: "list[str]"  # where a serializer has set it: what this player tries, in this order

    def __str__(self) -> str:
        return f"{self.session_id}/{self.number}"

    @property
    def needed_family(self) -> str:
        """In which its player reaches a relay. Empty: either, or it is not known."""
        return needed_family(self.address_family, self.ip)


class PlacementRule(models.Model):
    """An operator's word on where sessions go, beside what requests ask for. For one tenant, or for all."""

    tenant = models.ForeignKey(Tenant, models.CASCADE, null=True, blank=True, help_text="Empty: all tenants.")
    kind = models.CharField(
        max_length=6,
        choices=[
            ("pin", "pin: use no other"),
            ("ban", "ban: never use"),
            ("prefer", "prefer: use unless another is much better"),
        ],
    )
    node = models.ForeignKey(RelayNode, models.CASCADE, null=True, blank=True)
    location = models.ForeignKey(Location, models.CASCADE, null=True, blank=True)
    note = models.CharField(max_length=200, blank=True, help_text="Why.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(node=None) ^ models.Q(location=None),
                name="placement_rule_names_one",
                violation_error_message="Name a node or a location, not both.",
            )
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.node or self.location}"


class Grant(models.Model):
    """A node being told of a session. `revision` is what it should hold, `confirmed` what it said it holds;
    the reconciler pushes while they differ. `wanted` off: the node is to forget the session."""

    session = models.ForeignKey(RelaySession, models.CASCADE, related_name="grants")
    worker = models.ForeignKey(RelayWorker, models.CASCADE, related_name="grants")
    wanted = models.BooleanField(default=True)
    seats_reserved = models.PositiveIntegerField(help_text="Given back to the worker when no longer wanted.")
    revision = models.PositiveIntegerField(default=1)
    confirmed = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created_at"]
        constraints = [models.UniqueConstraint(fields=["session", "worker"], name="grant_unique")]
        indexes = [
            models.Index(
                fields=["worker"],
                condition=models.Q(confirmed__lt=models.F("revision")),
                name="grant_unconfirmed",
            )
        ]

    def __str__(self) -> str:
        return f"{self.session_id} on {self.worker}"


class EventKind(models.TextChoices):
    REQUESTED = "requested"
    SKIPPED = "skipped", "skipped: a node did not take it"
    PLACED = "placed"
    READY = "ready"
    FAILED = "failed"
    ENDED = "ended"
    SEAT_ADDED = "seat_added"
    SEAT_REVOKED = "seat_revoked"
    SEAT_JOINED = "seat_joined"
    SEAT_MOVED = "seat_moved"
    SEAT_LEFT = "seat_left"
    BETTER_RELAY = "better_relay"


class SessionEvent(models.Model):
    """The timeline of a session: each change with its time and reason."""

    session = models.ForeignKey(RelaySession, models.CASCADE, related_name="events")
    at = models.DateTimeField()
    kind = models.CharField(max_length=30, choices=EventKind)
    seat = models.PositiveSmallIntegerField(null=True, blank=True)
    reason = models.CharField(max_length=200, blank=True)

    class Meta:
        ordering = ["at", "id"]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.session_id}"


class IdempotencyKey(models.Model):
    """A POST that may be sent again: the same key and body get the same session (RFC draft idempotency-key-header)."""

    tenant = models.ForeignKey(Tenant, models.CASCADE)
    key_hash = models.CharField(max_length=64)
    request_hash = models.CharField(max_length=64)
    session = models.ForeignKey(RelaySession, models.CASCADE, null=True)
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "key_hash"], name="idempotency_key_unique")]

    def __str__(self) -> str:
        return f"of {self.tenant} for {self.session_id}"


class WebhookEvent(models.TextChoices):
    READY = "ready"
    FAILED = "failed"
    ENDED = "ended"
    PLAYER_JOINED = "player_joined"
    PLAYER_LEFT = "player_left"


class WebhookDelivery(models.Model):
    """One event on its way to one URL. Retried by the row, not by the queue."""

    tenant = models.ForeignKey(Tenant, models.CASCADE)
    session = models.ForeignKey(RelaySession, models.CASCADE, related_name="deliveries")
    event = models.CharField(max_length=20, choices=WebhookEvent)
    url = models.URLField(max_length=500)
    host = models.CharField(max_length=200, default="", editable=False, help_text="Scheme, name and port of the URL.")
    payload = EncryptedTextField(editable=False, help_text="The exact bytes sent; may hold players' tokens.")
    payload_deleted_at = models.DateTimeField(null=True, blank=True, help_text="It cannot be sent again.")
    is_signed = models.BooleanField(default=True, help_text="Off for Edgegap's plain webhook_url.")
    attempts = models.PositiveIntegerField(default=0)
    next_attempt_at = models.DateTimeField(null=True, blank=True, help_text="None: done, one way or the other.")
    delivered_at = models.DateTimeField(null=True, blank=True)
    last_error = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created_at"]
        verbose_name_plural = "webhook deliveries"
        indexes = [
            # Of those that wait only: few beside those that are done with.
            models.Index(
                fields=["next_attempt_at", "tenant", "host"],
                condition=models.Q(next_attempt_at__isnull=False),
                name="delivery_waiting",
            ),
            models.Index(
                fields=["created_at"], condition=models.Q(payload_deleted_at=None), name="delivery_has_payload"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.event} {self.session_id}"


class WebhookEndpoint(models.Model):
    """The circuit breaker of one tenant's host. There is a row for those that have failed lately."""

    HOST_LENGTH = 200

    tenant = models.ForeignKey(Tenant, models.CASCADE)
    host = models.CharField(max_length=HOST_LENGTH, help_text="Scheme, name and port of the URLs.")
    failures = models.PositiveIntegerField(default=0, help_text="In a row.")
    opened_at = models.DateTimeField(null=True, blank=True, help_text="Since then its circuit is open.")
    retry_at = models.DateTimeField(
        null=True, blank=True, help_text="Nothing is sent before; then one delivery is the trial. Empty: closed."
    )
    last_error = models.CharField(max_length=200, blank=True)
    changed_at = models.DateTimeField()

    class Meta:
        ordering = ["-changed_at"]
        constraints = [models.UniqueConstraint(fields=["tenant", "host"], name="webhook_endpoint_unique")]

    def __str__(self) -> str:
        return f"{self.host} of {self.tenant}"

    @property
    def circuit(self) -> str:
        """closed, open, or on trial: what is due next decides."""
        if self.retry_at is None:
            return "closed"
        return "open" if self.retry_at > timezone.now() else "on trial"

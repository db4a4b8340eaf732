"""Relay sessions, their seats, and what happened to them."""

import secrets

from django.contrib.postgres.indexes import GinIndex
from django.core.validators import MaxValueValidator
from django.db import models

from nodeapi.grants import MAX_DIRECT_GRACE
from relaymgr.nodes.locations.address_families import needed_family
from relaymgr.tenants.choices import DirectMode
from web.database.encryption import EncryptedTextField

from .webhooks.models import WebhookDelivery as WebhookDelivery
from .webhooks.models import WebhookEndpoint as WebhookEndpoint
from .webhooks.models import WebhookEvent as WebhookEvent


def new_session_id() -> str:
    """Edgegap's form (EDGEGAP.md 3.4): 12 lowercase hexadecimal digits and "-S"."""
    return secrets.token_hex(6) + "-S"


class SessionState(models.TextChoices):
    """requested -> placed -> ready -> ended | failed (see `lifecycle`)."""

    REQUESTED = "requested"
    PLACED = "placed"
    READY = "ready"
    ENDED = "ended"
    FAILED = "failed"


LIVE_STATES = (SessionState.REQUESTED, SessionState.PLACED, SessionState.READY)
ENDED_STATES = (SessionState.ENDED, SessionState.FAILED)


class RelaySession(models.Model):
    """Players who reach each other through one worker of one node."""

    id = models.CharField(primary_key=True, max_length=20, default=new_session_id)
    tenant = models.ForeignKey("tenants.Tenant", models.CASCADE, related_name="relay_sessions")
    state = models.CharField(max_length=10, choices=SessionState, default=SessionState.REQUESTED)
    worker = models.ForeignKey("nodes.RelayWorker", models.SET_NULL, null=True, related_name="relay_sessions")
    standby = models.ForeignKey(
        "nodes.RelayWorker",
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="standby_sessions",
        help_text="The worker of another node that has confirmed the session, and that players use if the first fails.",
    )
    wants_standby = models.BooleanField(default=False, db_default=False)
    standby_reason = models.CharField(
        max_length=30, blank=True, default="", db_default="", help_text="Why it has no standby relay, as a code."
    )
    standby_checked_at = models.DateTimeField(null=True, blank=True, editable=False)
    epoch = models.PositiveSmallIntegerField(
        default=0, db_default=0, help_text="How often the session has changed its relay (PROTOCOL.md 14)."
    )
    offer_number = models.PositiveIntegerField(
        default=0, db_default=0, editable=False, help_text="Of the last offer to its seats."
    )
    topology = models.CharField(max_length=4, choices=[("host", "host"), ("mesh", "mesh")], default="host")
    objective = models.CharField(
        max_length=6, choices=[("worst", "worst"), ("sum", "sum"), ("spread", "spread")], default="worst"
    )
    dialects = models.JSONField(default=list)
    token = EncryptedTextField(editable=False, help_text="32-bit token of the edgegap dialect.")
    direct_mode = models.CharField(
        max_length=10,
        choices=DirectMode,
        default=DirectMode.RELAY_ONLY,
        db_default=DirectMode.RELAY_ONLY,
        help_text="The stricter of the tenant's and the requested one, when it was created or changed.",
    )
    direct_grace = models.PositiveSmallIntegerField(
        default=0,
        db_default=0,
        validators=[MaxValueValidator(MAX_DIRECT_GRACE)],
        help_text="Seconds for which direct paths go on while a player receives nothing from the relay.",
    )
    peer_root = EncryptedTextField(
        null=True,
        editable=False,
        help_text="Base64url, 32 bytes: the root of the peer keys. Empty: no seat has direct paths.",
    )
    filters = models.JSONField(default=list, blank=True)
    constraints = models.JSONField(
        default=dict, blank=True, help_text='As requested: {"pin": [...], "ban": ..., "prefer": ...}.'
    )
    metadata = models.JSONField(default=dict, blank=True)
    webhook_url = models.URLField(blank=True, max_length=500)
    limits = models.JSONField(default=dict, help_text='Per second: {"seat": {"packets", "bytes"}, "session": ...}.')
    idle_timeout = models.PositiveIntegerField(help_text="Seconds.")
    created_at = models.DateTimeField(auto_now_add=True)
    ready_at = models.DateTimeField(null=True, blank=True)
    expires_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)
    end_reason = models.CharField(max_length=50, blank=True, help_text="Why it ended or failed.")
    placement = models.JSONField(default=dict, blank=True, help_text="The record that /placement explains.")
    minimised_at = models.DateTimeField(
        null=True,
        blank=True,
        editable=False,
        help_text="When its data of players was minimised.",
    )
    reevaluated_at = models.DateTimeField(null=True, blank=True, editable=False)
    better_relay = models.JSONField(
        default=dict, blank=True, help_text='A better node: {"node", "location", "gain_ms", "since", "is_reported"}.'
    )

    active_seats: "list[Seat]"  # set by `selectors.with_details`: those that are not revoked, in order

    class Meta:
        indexes = [
            models.Index(fields=["tenant", "state", "-created_at"], name="session_tenant_state_created"),
            models.Index(fields=["state", "expires_at"], name="session_state_expires"),
            # Covers what the list of live sessions counts and skips by, so that no row is fetched for that. Live
            # sessions are few compared with those that are kept.
            models.Index(
                fields=["tenant", "-created_at", "id", "state", "worker"],
                condition=models.Q(state__in=LIVE_STATES),
                name="session_live_newest",
            ),
            # On SQLite this is an ordinary index, which is not used.
            GinIndex(fields=["metadata"], opclasses=["jsonb_path_ops"], name="session_metadata"),
            models.Index(fields=["-created_at", "id"], name="session_recent"),
            models.Index(
                fields=["ended_at"],
                condition=models.Q(minimised_at=None, state__in=ENDED_STATES),
                name="session_to_minimise",
            ),
            # Few sessions lack a standby relay that they want.
            models.Index(
                fields=["standby_checked_at"],
                condition=models.Q(state=SessionState.READY, wants_standby=True, standby=None),
                name="session_lacks_standby",
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
        """A node is assigned."""
        return self.state in (SessionState.PLACED, SessionState.READY) and self.worker is not None


SEAT_SECRETS = ("token", "seat_key", "connect_token", "offer_key", "standby_token")


class Seat(models.Model):
    """A player's seat in a session. Seat 0 is the host. Numbers are never reused."""

    session = models.ForeignKey(RelaySession, models.CASCADE, related_name="seats")
    number = models.PositiveSmallIntegerField()
    player_id = models.CharField(max_length=64, blank=True)
    ip = models.GenericIPAddressField(null=True, blank=True)
    address_family = models.CharField(
        max_length=4, blank=True, help_text="As requested: ipv4, ipv6 or any. Empty: that of the address."
    )
    latitude = models.FloatField(null=True, blank=True)
    longitude = models.FloatField(null=True, blank=True)
    latencies = models.JSONField(default=dict, blank=True, help_text="{location or node: milliseconds}")
    measurements = models.JSONField(
        default=dict,
        blank=True,
        help_text="Accepted: {node or location: [ms, jitter ms, loss, seconds since 1970]}",
    )
    token = EncryptedTextField(editable=False, help_text="32-bit token of the edgegap dialect.")
    seat_key = EncryptedTextField(editable=False, help_text="Base64url, 32 bytes: the key of the native dialect.")
    connect_token = EncryptedTextField(editable=False, default="", help_text="Base64url; sealed once a node is chosen.")
    offer_key = EncryptedTextField(
        editable=False,
        default="",
        help_text="Base64url, 32 bytes: the seat keys at other relays derive from it. No node receives it.",
    )
    standby_token = EncryptedTextField(
        editable=False, default="", help_text="Base64url: the connect token for the standby relay."
    )
    offer_number = models.PositiveIntegerField(
        default=0, db_default=0, editable=False, help_text="Of the offer that its node makes it; 0: none."
    )
    changed_relay_to = models.ForeignKey(
        "nodes.RelayNode",
        models.SET_NULL,
        null=True,
        editable=False,
        related_name="+",
        help_text="The node to which its player last reported to have changed.",
    )
    direct_mode = models.CharField(
        max_length=10,
        choices=DirectMode,
        default=DirectMode.RELAY_ONLY,
        db_default=DirectMode.RELAY_ONLY,
        help_text="The strictest of the tenant's, the session's and the requested one.",
    )
    requested_direct_mode = models.CharField(
        max_length=10,
        choices=DirectMode,
        default=DirectMode.DIRECT,
        db_default=DirectMode.DIRECT,
        editable=False,
        help_text="As requested for this seat; direct: as the session.",
    )
    is_connected = models.BooleanField(default=False)
    dialect = models.CharField(max_length=10, blank=True)
    # How often its changes are reported (see `reconciler`).
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

    relay_ips: "list[str]"  # set by a serializer: the addresses this player tries, in this order
    standby: "dict[str, object] | None"  # set by a serializer
    websocket_url: "str | None"  # set by a serializer
    peer_keys: "str | None"  # set by a serializer

    def __str__(self) -> str:
        return f"{self.session_id}/{self.number}"

    @property
    def needed_family(self) -> str:
        """The address family in which its player reaches a relay. Empty: either, or unknown."""
        return needed_family(self.address_family, self.ip)


class PlacementRule(models.Model):
    """An operator's constraint on placement, in addition to those of requests. For one tenant, or for all."""

    tenant = models.ForeignKey("tenants.Tenant", models.CASCADE, null=True, blank=True, help_text="Empty: all tenants.")
    kind = models.CharField(
        max_length=6,
        choices=[
            ("pin", "pin: use no other"),
            ("ban", "ban: never use"),
            ("prefer", "prefer: use unless another is much better"),
        ],
    )
    node = models.ForeignKey("nodes.RelayNode", models.CASCADE, null=True, blank=True)
    location = models.ForeignKey("nodes.Location", models.CASCADE, null=True, blank=True)
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


class GrantRole(models.TextChoices):
    """What a node is for a session. leaving: it served the session, which moves to another node."""

    ACTIVE = "active"
    STANDBY = "standby"
    LEAVING = "leaving"


class Grant(models.Model):
    """A session that a node has to serve. `revision` is what the node should hold, `confirmed` what it has confirmed.

    The reconciler pushes the grant while they differ. `wanted` off: the node has to delete the session.
    """

    session = models.ForeignKey(RelaySession, models.CASCADE, related_name="grants")
    worker = models.ForeignKey("nodes.RelayWorker", models.CASCADE, related_name="grants")
    role = models.CharField(max_length=10, choices=GrantRole, default=GrantRole.ACTIVE, db_default=GrantRole.ACTIVE)
    wanted = models.BooleanField(default=True)
    seats_reserved = models.PositiveIntegerField(help_text="Released when the grant is withdrawn.")
    revision = models.PositiveIntegerField(default=1)
    confirmed = models.PositiveIntegerField(default=0)
    leaving_until = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="When a planned move ends at the latest."
    )
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
    SKIPPED = "skipped", "skipped: a node did not take the session"
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
    PATH_CHANGED = "path_changed"
    DIRECT_MODE_CHANGED = "direct_mode_changed"
    STANDBY_READY = "standby_ready", "standby_ready: another node has confirmed the session"
    STANDBY_LOST = "standby_lost"
    RELAY_CHANGED = "relay_changed"


class SessionEvent(models.Model):
    """An entry of a session's timeline, with its time and reason."""

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
    """Makes a POST repeatable: the same key and body get the same session (IETF draft idempotency-key-header)."""

    tenant = models.ForeignKey("tenants.Tenant", models.CASCADE)
    key_hash = models.CharField(max_length=64)
    request_hash = models.CharField(max_length=64)
    session = models.ForeignKey(RelaySession, models.CASCADE, null=True)
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "key_hash"], name="idempotency_key_unique")]

    def __str__(self) -> str:
        return f"of {self.tenant} for {self.session_id}"

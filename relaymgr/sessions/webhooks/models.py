"""Deliveries of webhooks, and the circuit breakers of their receivers."""

from django.db import models
from django.utils import timezone

from web.database.encryption import EncryptedTextField


class WebhookEvent(models.TextChoices):
    READY = "ready"
    FAILED = "failed"
    ENDED = "ended"
    PLAYER_JOINED = "player_joined"
    PLAYER_LEFT = "player_left"
    RELAY_CHANGED = "relay_changed"


class WebhookDelivery(models.Model):
    """One event to be delivered to one URL. Retries are scheduled in the row, not in the task queue."""

    tenant = models.ForeignKey("tenants.Tenant", models.CASCADE)
    session = models.ForeignKey("relay_sessions.RelaySession", models.CASCADE, related_name="deliveries")
    event = models.CharField(max_length=20, choices=WebhookEvent)
    url = models.URLField(max_length=500)
    host = models.CharField(max_length=200, default="", editable=False, help_text="Scheme, name and port of the URL.")
    payload = EncryptedTextField(editable=False, help_text="The exact body; may contain tokens of players.")
    payload_deleted_at = models.DateTimeField(null=True, blank=True, help_text="Since then it cannot be sent.")
    is_signed = models.BooleanField(default=True, help_text="Off for Edgegap's plain webhook_url.")
    attempts = models.PositiveIntegerField(default=0)
    next_attempt_at = models.DateTimeField(null=True, blank=True, help_text="Empty: delivered or given up.")
    delivered_at = models.DateTimeField(null=True, blank=True)
    last_error = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created_at"]
        verbose_name_plural = "webhook deliveries"
        indexes = [
            # Waiting deliveries only, which are few compared with the finished ones.
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
    """The circuit breaker for one host of a tenant. Only hosts that failed recently have a row."""

    HOST_LENGTH = 200

    tenant = models.ForeignKey("tenants.Tenant", models.CASCADE)
    host = models.CharField(max_length=HOST_LENGTH, help_text="Scheme, name and port of the URLs.")
    failures = models.PositiveIntegerField(default=0, help_text="Consecutive.")
    opened_at = models.DateTimeField(null=True, blank=True, help_text="When the circuit was opened.")
    retry_at = models.DateTimeField(
        null=True,
        blank=True,
        help_text="When one delivery is sent as a trial. Empty: the circuit is closed.",
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
        """closed, open, or on trial: the next delivery decides."""
        if self.retry_at is None:
            return "closed"
        return "open" if self.retry_at > timezone.now() else "on trial"

"""Tenants (studios), and the API keys of tenants, nodes and services."""

import base64
import secrets

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.utils import timezone

from nodeapi.grants import MAX_DIRECT_GRACE
from web.database.encryption import EncryptedTextField
from web.http.origins import origins_problem

from .choices import DirectMode, PlayerAddresses


def new_webhook_secret() -> str:
    """In the format of the Standard Webhooks scheme: "whsec_" and base64."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()


def validate_origins(origins: object) -> None:
    if problem := origins_problem(origins):
        raise ValidationError(problem, "origins")


class Tenant(models.Model):
    """A studio. Its keys can access its own sessions only."""

    name = models.CharField(max_length=100)
    slug = models.SlugField(unique=True)
    is_active = models.BooleanField(default=True, help_text="Off: its keys are refused.")
    requests_per_minute = models.PositiveIntegerField(
        default=1200, validators=[MinValueValidator(1)], help_text="For each API key."
    )
    sessions_per_minute = models.PositiveIntegerField(
        default=3_000,
        db_default=3_000,
        validators=[MinValueValidator(1)],
        help_text="Created; with all its keys, and by a matchmaker for it.",
    )
    max_sessions = models.PositiveIntegerField(default=10_000, help_text="Live at one time.")
    edgegap_enabled = models.BooleanField(default=True, help_text="The unauthenticated edgegap dialect.")
    private_webhooks = models.BooleanField(
        default=False, help_text="Webhooks may go to private and loopback addresses."
    )
    player_addresses = models.CharField(
        max_length=10,
        choices=PlayerAddresses,
        default=PlayerAddresses.TRUNCATE,
        db_default=PlayerAddresses.TRUNCATE,
        help_text="Which addresses, coordinates and measurements of players are kept after a session ends.",
    )
    direct_mode = models.CharField(
        max_length=10,
        choices=DirectMode,
        default=DirectMode.RELAY_ONLY,
        db_default=DirectMode.RELAY_ONLY,
        help_text="The least strict mode that a session may have. Players with a direct path see each other's address.",
    )
    direct_grace = models.PositiveSmallIntegerField(
        default=60,
        db_default=60,
        validators=[MaxValueValidator(MAX_DIRECT_GRACE)],
        help_text="Seconds for which direct paths go on while a player receives nothing from the relay.",
    )
    standby_relays = models.BooleanField(
        default=True,
        db_default=True,
        help_text="Sessions that admit the native dialect only have a second relay, which players use at once if the "
        "first one fails.",
    )
    webhook_secret = EncryptedTextField(default=new_webhook_secret, editable=False)
    webhook_url = models.URLField(blank=True, help_text="Gets the signed events of all sessions.")
    allowed_cors_origins = models.JSONField(
        default=list,
        db_default=models.Value([], models.JSONField()),  # for rows that the previous version inserts
        blank=True,
        validators=[validate_origins],
        help_text='Browser pages that may use the keys: ["https://play.example.com", "https://*.example.com"].',
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["slug"]

    def __str__(self) -> str:
        return self.slug


class ApiKey(models.Model):
    """A key: `cw_<prefix>_<secret>`. The secret has 256 random bits, so a single SHA-256 is sufficient."""

    tenant = models.ForeignKey(
        Tenant, models.CASCADE, related_name="keys", null=True, blank=True, help_text="None for a node's key."
    )
    name = models.CharField(max_length=100)
    prefix = models.CharField(max_length=12, unique=True, editable=False)
    secret_hash = models.CharField(max_length=64, editable=False)
    scopes = models.JSONField(default=list, help_text="Some of: relay, read, matchmaker, node.")
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ["-created_at"]
        verbose_name = "API key"

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix})"

    @property
    def is_usable(self) -> bool:
        if self.revoked_at or (self.expires_at and self.expires_at <= timezone.now()):
            return False
        return self.tenant is None or self.tenant.is_active

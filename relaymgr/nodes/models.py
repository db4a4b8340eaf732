"""Locations, relay nodes, their workers and keys."""

from datetime import datetime

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models

from nodeapi.membership import MAX_WEBSOCKET_URL
from relaymgr.nodes.health.silence import silent_since
from relaymgr.nodes.locations.address_families import by_family
from relaymgr.nodes.states import DRAINING, MAX_JOIN_KEY_USES, IncidentKind, NodeState
from web.database.encryption import EncryptedTextField


def validate_tags(value: object) -> None:
    if not isinstance(value, list) or not all(isinstance(tag, str) and tag for tag in value):
        raise ValidationError('Write a list of words, such as ["premium"].', "tags")


class Location(models.Model):
    """A place that has nodes."""

    slug = models.SlugField(unique=True)
    city = models.CharField(max_length=100)
    country = models.CharField(max_length=100)
    country_code = models.CharField(max_length=2, help_text="ISO 3166-1 alpha-2, upper case.")
    continent = models.CharField(max_length=50)
    region = models.CharField(max_length=100, blank=True, help_text="State or other administrative division.")
    timezone = models.CharField(max_length=64, default="UTC")
    latitude = models.FloatField(validators=[MinValueValidator(-90), MaxValueValidator(90)])
    longitude = models.FloatField(validators=[MinValueValidator(-180), MaxValueValidator(180)])
    tags = models.JSONField(
        default=list, blank=True, validators=[validate_tags], help_text='For filters, e.g. ["premium"].'
    )

    class Meta:
        ordering = ["slug"]

    def __str__(self) -> str:
        return self.slug


class RelayNode(models.Model):
    """One relay process group at a location."""

    name = models.SlugField(unique=True)
    location = models.ForeignKey(Location, models.PROTECT, related_name="nodes")
    public_ip = models.GenericIPAddressField(
        help_text="The address at which players reach the node; IPv4 if it has both."
    )
    public_ipv6 = models.GenericIPAddressField(
        null=True, blank=True, protocol="IPv6", help_text="The IPv6 address, if public_ip is IPv4."
    )
    host = models.CharField(max_length=253, blank=True, help_text="A DNS name for these addresses, or empty.")
    websocket_url = models.CharField(
        max_length=MAX_WEBSOCKET_URL,
        blank=True,
        default="",
        help_text="The base URL at which players whose network blocks UDP reach the node, or empty.",
    )
    websocket_connections = models.PositiveIntegerField(
        null=True, editable=False, help_text="Players connected over WebSockets; empty if the node has none."
    )
    websocket_restarts = models.PositiveIntegerField(
        default=0, editable=False, help_text="How often the process that carries them ended since the node started."
    )
    control_url = models.URLField(help_text="The URL at which the manager reaches the node's control API.")
    state = models.CharField(max_length=10, choices=NodeState, default=NodeState.JOINING)
    is_draining = models.BooleanField(
        default=False, help_text="An operator drains the node: no new sessions, live ones continue to their end."
    )
    is_stopping = models.BooleanField(
        default=False,
        editable=False,
        help_text="The node reports that it drains: on request, or because it is about to stop.",
    )
    price = models.FloatField(default=0.0, help_text="Per hour, in any unit. Placement uses it to break ties.")
    key = models.OneToOneField("tenants.ApiKey", models.SET_NULL, null=True, editable=False)
    control_key = EncryptedTextField(editable=False)
    version = models.CharField(max_length=20, blank=True)
    boot_id = models.CharField(max_length=40, blank=True, editable=False)
    refused_boot_id = models.CharField(
        max_length=40,
        blank=True,
        default="",
        db_default="",
        editable=False,
        help_text="The boot id of another process with the identity of this node.",
    )
    last_event = models.PositiveBigIntegerField(default=0, editable=False)
    packet_path = models.CharField(max_length=10, blank=True)
    packet_path_reason = models.CharField(max_length=200, blank=True)
    cpu = models.FloatField(default=0.0, help_text="Share of a core that the busiest worker uses.")
    missed_probes = models.PositiveIntegerField(default=0, editable=False)
    last_seen_at = models.DateTimeField(null=True, blank=True)
    clock_offset_ms = models.FloatField(default=0.0)
    joined_at = models.DateTimeField(auto_now_add=True)
    joined_with = models.ForeignKey(
        "JoinKey", models.SET_NULL, null=True, blank=True, editable=False, related_name="nodes"
    )

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    @property
    def address(self) -> str:
        """What clients resolve: the DNS name, or the IP address if there is none."""
        return self.host or self.public_ip

    def websocket_url_of(self, port: int) -> str | None:
        """The URL at which the node carries WebSockets to this UDP port. None: it carries none."""
        return f"{self.websocket_url}/relay/{port}" if self.websocket_url else None

    @property
    def addresses(self) -> dict[str, str]:
        """{"ipv4": ..., "ipv6": ...}, of the families that the node has."""
        return by_family(self.public_ip, self.public_ipv6)

    @property
    def status(self) -> str:
        """The state; `draining` for a ready node that accepts no new sessions."""
        return DRAINING if self.state == NodeState.READY and not self.takes_sessions else self.state

    def silent_since(self, now: datetime) -> datetime | None:
        """See `silence.silent_since`."""
        return silent_since(self.last_seen_at, now)

    @property
    def takes_sessions(self) -> bool:
        return self.state == NodeState.READY and not self.is_draining and not self.is_stopping


class NodeStateChange(models.Model):
    """The timeline of a node: each change of its status, so that a node that was lost for a minute leaves a trace.

    Pruned by age and by number (`nodes.health.state_changes`). Sessions show the changes of their node that
    happened while they were live."""

    node = models.ForeignKey(RelayNode, models.CASCADE, related_name="state_changes")
    at = models.DateTimeField(db_index=True)
    before = models.CharField(max_length=10, blank=True, help_text="Empty for a new node.")
    after = models.CharField(max_length=10)
    reason = models.CharField(max_length=200, blank=True)

    class Meta:
        ordering = ["-at", "-id"]
        indexes = [models.Index(fields=["node", "-at"], name="node_state_change_node_at")]

    def __str__(self) -> str:
        return f"{self.node}: {self.after}"


class NodeIncident(models.Model):
    """The last time that a node misbehaved in one way, and how often it did."""

    node = models.ForeignKey(RelayNode, models.CASCADE, related_name="incidents")
    kind = models.CharField(max_length=20, choices=IncidentKind)
    detail = models.CharField(max_length=300, blank=True)
    count = models.PositiveBigIntegerField(default=1)
    first_at = models.DateTimeField()
    last_at = models.DateTimeField(db_index=True)

    class Meta:
        ordering = ["-last_at"]
        constraints = [models.UniqueConstraint(fields=["node", "kind"], name="node_incident_unique")]

    def __str__(self) -> str:
        return f"{self.node}: {self.get_kind_display()}"


class RelayWorker(models.Model):
    """One process of a node, with its own port pair. Seats are reserved on this row by a conditional UPDATE."""

    node = models.ForeignKey(RelayNode, models.CASCADE, related_name="workers")
    index = models.PositiveSmallIntegerField()
    server_port = models.PositiveIntegerField(validators=[MaxValueValidator(65535)])
    client_port = models.PositiveIntegerField(validators=[MaxValueValidator(65535)])
    capacity = models.PositiveIntegerField(help_text="Seats.")
    free_seats = models.IntegerField()

    class Meta:
        ordering = ["node", "index"]
        constraints = [
            models.UniqueConstraint(fields=["node", "index"], name="worker_index_unique"),
            models.CheckConstraint(
                condition=models.Q(free_seats__gte=0, free_seats__lte=models.F("capacity")),
                name="worker_free_seats_within_capacity",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.node}/{self.index}"


class TokenKey(models.Model):
    """A key under which connect tokens for one node are sealed (PROTOCOL.md 5)."""

    node = models.ForeignKey(RelayNode, models.CASCADE, related_name="token_keys")
    key_id = models.PositiveBigIntegerField(help_text="u32, unique for the node.")
    key = EncryptedTextField(editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    confirmed_at = models.DateTimeField(
        null=True, blank=True, help_text="When the node first reported that it holds the key."
    )
    retired_at = models.DateTimeField(
        null=True, blank=True, help_text="When the key ceased to seal tokens; it opens them for a while longer."
    )

    class Meta:
        ordering = ["-created_at"]
        constraints = [models.UniqueConstraint(fields=["node", "key_id"], name="token_key_id_unique")]

    def __str__(self) -> str:
        return f"{self.node} {self.key_id}"


class JoinKey(models.Model):
    """Lets a number of nodes join at one location, each once."""

    location = models.ForeignKey(Location, models.CASCADE, related_name="join_keys")
    prefix = models.CharField(max_length=12, unique=True, editable=False)
    secret_hash = models.CharField(max_length=64, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    uses_left = models.PositiveIntegerField(
        default=1, db_default=1, validators=[MinValueValidator(1), MaxValueValidator(MAX_JOIN_KEY_USES)]
    )
    used_at = models.DateTimeField(null=True, blank=True, editable=False, help_text="When the last use was consumed.")
    used_by = models.ForeignKey(RelayNode, models.SET_NULL, null=True, blank=True, editable=False)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.location} ({self.prefix})"

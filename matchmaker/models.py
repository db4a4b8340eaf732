"""Profiles and their versions; tickets, groups, matches and backfills.

`tenant` is the slug of a tenant of the manager: there is no foreign key into the manager's tables.
"""

import base64
import secrets
import uuid
from datetime import datetime

from django.db import models
from django.utils import timezone

from web.database.encryption import EncryptedJSONField


def new_id() -> str:
    """In the form of Edgegap's ids (EDGEGAP.md 5.3), with 100 random bits: the id of a ticket gives access to its
    tokens."""
    return _base32hex(20)


def new_player_id() -> str:
    return _base32hex(12)


def _base32hex(characters: int) -> str:
    return base64.b32hexencode(secrets.token_bytes(characters)).decode()[:characters].lower()


class Profile(models.Model):
    """A kind of match. Its versions contain its configuration, and tickets are matched by the active one."""

    tenant = models.CharField(max_length=50)
    name = models.CharField(max_length=64)
    active = models.ForeignKey("ProfileVersion", models.PROTECT, null=True, blank=True, related_name="+")

    class Meta:
        ordering = ["tenant", "name"]
        constraints = [models.UniqueConstraint(fields=["tenant", "name"], name="profile_name_unique")]

    def __str__(self) -> str:
        return f"{self.tenant}/{self.name}"


class ProfileVersion(models.Model):
    """A configuration, which never changes."""

    profile = models.ForeignKey(Profile, models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    config = models.JSONField()
    note = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    activated_at = models.DateTimeField(null=True, blank=True, help_text="When it was last activated.")

    class Meta:
        ordering = ["profile", "-number"]
        constraints = [models.UniqueConstraint(fields=["profile", "number"], name="profile_version_unique")]

    def __str__(self) -> str:
        return f"{self.profile} v{self.number}"


class Status(models.TextChoices):
    """INITIAL -> SEARCHING -> MATCH_FOUND -> HOST_ASSIGNED, or CANCELLED (EDGEGAP.md 5.3). The tickets of a match that
    fails return to SEARCHING. The deprecated TEAM_FOUND is never reported."""

    INITIAL = "INITIAL"
    SEARCHING = "SEARCHING"
    MATCH_FOUND = "MATCH_FOUND"
    HOST_ASSIGNED = "HOST_ASSIGNED"
    CANCELLED = "CANCELLED"


ACTIVE = (Status.INITIAL, Status.SEARCHING, Status.MATCH_FOUND)


class PassState(models.Model):
    """The last pass over the tickets of a version, and the lease for the next one. No row is locked during a pass: a
    process leases the version, and a lease that is not released expires."""

    version = models.OneToOneField(ProfileVersion, models.CASCADE, primary_key=True, related_name="pass_state")
    leased_until = models.DateTimeField(null=True, blank=True)
    passed_at = models.DateTimeField(null=True, blank=True)
    duration = models.FloatField(default=0.0, help_text="Duration of the last pass in seconds.")
    players = models.PositiveIntegerField(default=0, help_text="Players considered by the last pass.")
    waiting_tickets = models.PositiveIntegerField(
        default=0, help_text="Tickets that were searching when the last pass began."
    )
    resume_from = models.FloatField(
        null=True,
        blank=True,
        help_text="Where the next pass goes on, when the last one ended early.",
    )
    window_start = models.DateTimeField(
        null=True,
        blank=True,
        help_text="The next pass reads tickets from this time on.",
    )
    failures = models.PositiveIntegerField(default=0, help_text="Consecutive failed passes.")
    suspended_until = models.DateTimeField(null=True, blank=True)
    error = models.CharField(max_length=200, blank=True)


class Group(models.Model):
    """Players who want to play together. Its status and match are those of its members."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    version = models.ForeignKey(ProfileVersion, models.PROTECT)
    created_at = models.DateTimeField(auto_now_add=True)


class MatchState(models.TextChoices):
    """forming -> assigned | failed. A match that is given up while its outcome is unknown is abandoned: its session or
    seats are removed, and then it has failed."""

    FORMING = "forming"
    ASSIGNED = "assigned"
    ABANDONED = "abandoned"
    FAILED = "failed"


class Match(models.Model):
    """Tickets that play together. `next_attempt_at` is also the claim of the process that makes the present attempt."""

    id = models.CharField(primary_key=True, max_length=20, default=new_id)
    version = models.ForeignKey(ProfileVersion, models.PROTECT, related_name="matches")
    state = models.CharField(max_length=10, choices=MatchState, default=MatchState.FORMING)
    backfill = models.ForeignKey("Backfill", models.SET_NULL, null=True, blank=True, related_name="matches")
    origin = models.ForeignKey(
        "self", models.SET_NULL, null=True, blank=True, help_text="The match that this backfill adds players to."
    )
    teams = models.JSONField(help_text="Player ids by team.")
    seats = models.JSONField(help_text="Player ids in the order of their seats, the host first.")
    request = models.JSONField(
        default=dict, help_text="The body of the request for the session. Every attempt sends the same one."
    )
    session_id = models.CharField(max_length=20, blank=True)
    location = models.CharField(max_length=50, blank=True)
    quality = models.FloatField(default=1.0)
    is_full = models.BooleanField(default=True)
    average_wait_time = models.FloatField(default=0.0, help_text="Seconds that its tickets had waited on average.")
    attempts = models.PositiveIntegerField(default=0)
    next_attempt_at = models.DateTimeField(null=True, default=timezone.now, help_text="None: nothing is left to do.")
    last_error = models.CharField(max_length=100, blank=True)
    explanation = models.JSONField(
        default=dict, help_text="How long each player had waited, and how far the players are apart by each rule."
    )
    created_at = models.DateTimeField(default=timezone.now)
    assigned_at = models.DateTimeField(null=True, blank=True)
    session_expires_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at"]
        verbose_name_plural = "matches"
        indexes = [
            models.Index(fields=["next_attempt_at"], name="match_next_attempt"),
            models.Index(fields=["version", "-created_at"], name="match_version_created"),
            models.Index(fields=["session_id"], name="match_session"),
        ]

    def __str__(self) -> str:
        return self.id

    def team_of(self, player_id: str) -> int | None:
        """The index of the player's team."""
        return next((index for index, team in enumerate(self.teams) if player_id in team), None)

    def team_id(self, player_id: str) -> str | None:
        """The same for all players of a team, including those who joined by a backfill."""
        team = self.team_of(player_id)
        return None if team is None else f"{self.origin_id or self.pk}-{team}"


class Ticket(models.Model):
    """The search of one player. In a group it is also the membership."""

    id = models.CharField(primary_key=True, max_length=20, default=new_id)
    tenant = models.CharField(max_length=50)
    version = models.ForeignKey(ProfileVersion, models.PROTECT, related_name="tickets")
    group = models.ForeignKey(Group, models.CASCADE, null=True, blank=True, related_name="members")
    match = models.ForeignKey(Match, models.SET_NULL, null=True, blank=True, related_name="tickets")
    status = models.CharField(max_length=15, choices=Status, default=Status.SEARCHING)
    reason = models.CharField(max_length=50, blank=True, help_text="Why it was cancelled.")
    is_ready = models.BooleanField(default=True)
    player_id = models.CharField(max_length=64, default=new_player_id, help_text="The id that other players see.")
    player_scope = models.CharField(
        max_length=64,
        blank=True,
        help_text="The profile in which the player may have one active ticket; empty: the tenant.",
    )
    rejoin_session_id = models.CharField(
        max_length=20,
        blank=True,
        help_text="The session in which the player proved to have a seat; *: any.",
    )
    network = models.CharField(max_length=16, blank=True, help_text="Digest of the network that the request came from.")
    request_key = models.CharField(max_length=64, blank=True, editable=False)
    request_digest = models.CharField(max_length=64, blank=True, editable=False)
    player_ip = models.GenericIPAddressField()
    attributes = models.JSONField()
    network_measurements = models.JSONField(
        default=dict,
        db_default=models.Value({}, models.JSONField()),  # for tickets of the version before
        help_text="Measurements, latencies, coordinates and direct mode, in the form of the manager's API.",
    )
    assignment = EncryptedJSONField(null=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now)
    searching_since = models.DateTimeField(null=True, blank=True)
    search_after = models.DateTimeField(null=True, blank=True, help_text="Passes leave the ticket out until then.")
    failures = models.PositiveIntegerField(default=0, help_text="Failed matches.")
    expires_at = models.DateTimeField()
    remove_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at"]
        indexes = [
            models.Index(fields=["status", "version", "searching_since"], name="ticket_waiting"),
            models.Index(fields=["status", "expires_at"], name="ticket_expires"),
            models.Index(fields=["remove_at"], name="ticket_remove"),
            models.Index(fields=["tenant", "status"], name="ticket_tenant_status"),
            models.Index(fields=["network", "status"], name="ticket_network_status"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "player_scope", "player_id"],
                condition=models.Q(status__in=ACTIVE),
                name="ticket_one_active_per_player",
            ),
            models.UniqueConstraint(
                fields=["request_key"], condition=~models.Q(request_key=""), name="ticket_request_once"
            ),
        ]

    def __str__(self) -> str:
        return self.player_id

    @property
    def team_id(self) -> str | None:
        """The team in its match, the same for all its players."""
        return self.match.team_id(self.player_id) if self.match else None

    def waited(self, until: datetime) -> float | None:
        """Seconds; None: the search has not begun."""
        return (until - self.searching_since).total_seconds() if self.searching_since else None


class Backfill(models.Model):
    """A request for one more group in a match in play (EDGEGAP.md 5.6)."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    tenant = models.CharField(max_length=50)
    version = models.ForeignKey(ProfileVersion, models.PROTECT, related_name="backfills")
    status = models.CharField(max_length=15, choices=Status, default=Status.SEARCHING)
    reason = models.CharField(max_length=50, blank=True, help_text="Why it was cancelled.")
    session_id = models.CharField(max_length=20, default="")
    open_seats = models.PositiveSmallIntegerField(default=0, help_text="Maximum number of players who can join.")
    seated = models.JSONField(default=list, help_text="Ids of the players who have a seat in the session.")
    attributes = models.JSONField()
    tickets = models.JSONField(default=dict)
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField()
    remove_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at"]
        indexes = [models.Index(fields=["status", "version"], name="backfill_waiting")]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "session_id"],
                condition=models.Q(status__in=ACTIVE),
                name="backfill_one_open_per_session",
            )
        ]


class LocationSnapshot(models.Model):
    """One row: the locations of the manager as last read, so that the API works while the manager is down."""

    beacons = models.JSONField(default=list)
    locations = models.JSONField(default=list)
    fetched_at = models.DateTimeField()


class Process(models.Model):
    """A matchmaker process, running or ended."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    name = models.CharField(max_length=100, help_text="host:process id")
    started_at = models.DateTimeField(default=timezone.now)
    seen_at = models.DateTimeField(default=timezone.now)
    manager_reachable = models.BooleanField(default=False)

    class Meta:
        ordering = ["-seen_at"]
        verbose_name_plural = "processes"

    def __str__(self) -> str:
        return self.name

"""What the API answers with, in Edgegap's words (EDGEGAP.md 5.2, 5.3) and with ours added."""

import json
from collections.abc import Mapping
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from web.fields.numbers import Port, Seat, Token, Version

from ..background.documents import completed, public_part
from ..models import Backfill, Status, Ticket

MAX_STORED = 100_000  # bytes of JSON: a match of 255 players in some detail


def check_size(attrs: Mapping[str, Any], *names: str) -> None:
    """Of free-form objects, which are stored as they are. Raises ValidationError."""
    for name in names:
        if len(json.dumps(attrs.get(name)).encode()) > MAX_STORED:
            raise serializers.ValidationError({name: [f"Send at most {MAX_STORED} bytes of JSON."]}, "max_length")


class AssignedPortSerializer(serializers.Serializer):
    internal = Port()
    external = Port()
    link = serializers.CharField()
    protocol = serializers.CharField()


class AssignedPortsSerializer(serializers.Serializer):
    gameport = AssignedPortSerializer(help_text="The one this player uses in the edgegap dialect.")
    server = AssignedPortSerializer()
    client = AssignedPortSerializer()


class AssignedLocationSerializer(serializers.Serializer):
    city = serializers.CharField()
    country = serializers.CharField()
    continent = serializers.CharField()
    administrative_division = serializers.CharField(allow_blank=True)
    timezone = serializers.CharField()
    slug = serializers.CharField()


class AssignedPlayerSerializer(serializers.Serializer):
    player_id = serializers.CharField()
    seat = Seat()
    team_id = serializers.CharField(allow_null=True, help_text="Null for players who came in by other ways.")


class GroupAssignmentSerializer(serializers.Serializer):
    fqdn = serializers.CharField(help_text="Of the relay.")
    public_ip = serializers.CharField()
    ports = AssignedPortsSerializer()
    location = AssignedLocationSerializer(allow_null=True)
    request_id = serializers.CharField(help_text="The relay session.")
    match_id = serializers.CharField()
    placement = serializers.CharField(help_text="Where the choice of the relay is explained.")


class AssignmentSerializer(GroupAssignmentSerializer):
    """Holds the player's own secrets."""

    expires_at = serializers.CharField()
    relay_ips = serializers.ListField(
        child=serializers.CharField(), help_text="Where this player reaches the relay: to be tried in this order."
    )
    seat = Seat(help_text="0: the host.")
    is_host = serializers.BooleanField()
    player_id = serializers.CharField()
    players = AssignedPlayerSerializer(many=True)
    session_token = Token(help_text="edgegap dialect: the session id.")
    user_token = Token(help_text="edgegap dialect: the user id.")
    connect_token = serializers.CharField(allow_null=True, help_text="native dialect.")
    seat_key = serializers.CharField(allow_null=True, help_text="native dialect.")
    rejoin_key = serializers.CharField(help_text="With it a later ticket of this player_id gets the same seat again.")
    host_key = serializers.CharField(
        allow_null=True, help_text="Of the host alone: with it the session may be backfilled by a player's key."
    )

    def to_representation(self, instance: Any) -> Any:
        return super().to_representation(completed(instance))


class TicketSerializer(serializers.Serializer):
    id = serializers.CharField()
    profile = serializers.CharField(source="version.profile.name")
    group_id = serializers.UUIDField(allow_null=True)
    team_id = serializers.CharField(allow_null=True)
    match_id = serializers.CharField(allow_null=True)
    player_ip = serializers.CharField()
    player_id = serializers.CharField(help_text="What other players see.")
    created_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField()
    status = serializers.ChoiceField(choices=Status.choices)
    reason = serializers.CharField(help_text="Why it was cancelled.")
    assignment = AssignmentSerializer(allow_null=True)


_TICKET = TicketSerializer()  # to make one copies all of its fields


def ticket_data(ticket: Ticket) -> dict[str, Any]:
    return _TICKET.to_representation(ticket)


class MemberSerializer(serializers.Serializer):
    member_id = serializers.CharField(source="id")
    group_id = serializers.UUIDField()
    is_ready = serializers.BooleanField()
    status = serializers.ChoiceField(choices=Status.choices)
    ticket_id = serializers.SerializerMethodField(help_text="Null before the group searches.")
    team_id = serializers.CharField(allow_null=True)
    assignment = AssignmentSerializer(allow_null=True)

    @extend_schema_field(serializers.CharField(allow_null=True))
    def get_ticket_id(self, member: Ticket) -> str | None:
        return None if member.status == Status.INITIAL else member.pk


class GroupSerializer(serializers.Serializer):
    """Of the first member: all of a group share a status and a match."""

    status = serializers.ChoiceField(choices=Status.choices)
    team_id = serializers.CharField(allow_null=True)
    assignment = serializers.SerializerMethodField()

    @extend_schema_field(GroupAssignmentSerializer(allow_null=True))
    def get_assignment(self, member: Any) -> dict[str, Any] | None:
        return public_part(member.assignment) if member.assignment else None


class BackfillSerializer(serializers.Serializer):
    id = serializers.UUIDField()
    profile = serializers.CharField(source="version.profile.name")
    status = serializers.ChoiceField(choices=Status.choices)
    reason = serializers.CharField(help_text="Why it was cancelled.")
    tickets = serializers.JSONField()
    assigned_ticket = serializers.SerializerMethodField(help_text="Who joins: null until then.")
    attributes = serializers.JSONField()
    expires_at = serializers.DateTimeField()

    @extend_schema_field(serializers.JSONField(allow_null=True))
    def get_assigned_ticket(self, backfill: Backfill) -> dict[str, Any] | None:
        """One group: its first ticket, and all the player ids under `players`. No ticket's id: it is a secret."""
        tickets = list(Ticket.objects.filter(match__backfill=backfill, status=Status.HOST_ASSIGNED).order_by("pk"))
        if not tickets:
            return None
        return {
            "player_id": tickets[0].player_id,
            "group_id": str(tickets[0].group_id) if tickets[0].group_id else None,
            "attributes": tickets[0].attributes,
            "players": [ticket.player_id for ticket in tickets],
        }


class VersionSerializer(serializers.Serializer):
    number = Version()
    note = serializers.CharField()
    created_at = serializers.DateTimeField()
    activated_at = serializers.DateTimeField(allow_null=True)
    is_active = serializers.SerializerMethodField()

    def get_is_active(self, version: Any) -> bool:
        return bool(version.profile.active_id == version.pk)


class FullVersionSerializer(VersionSerializer):
    config = serializers.JSONField()

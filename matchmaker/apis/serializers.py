"""The documents of the API: Edgegap's (EDGEGAP.md 5.2, 5.3), with our fields added."""

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
    """Limits free-form objects, which are stored unchanged. Raises ValidationError."""
    for name in names:
        if len(json.dumps(attrs.get(name)).encode()) > MAX_STORED:
            raise serializers.ValidationError({name: [f"Send at most {MAX_STORED} bytes of JSON."]}, "max_length")


class AssignedPortSerializer(serializers.Serializer):
    internal = Port()
    external = Port()
    link = serializers.CharField()
    protocol = serializers.CharField()


class AssignedPortsSerializer(serializers.Serializer):
    gameport = AssignedPortSerializer(help_text="The port of this player in the edgegap dialect.")
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
    team_id = serializers.CharField(
        allow_null=True, help_text="Null for players who joined the session by other means."
    )


class AssignedRelayPortSerializer(serializers.Serializer):
    port = Port()
    protocol = serializers.CharField(help_text="UDP.")
    link = serializers.CharField(help_text="host:port")


class AssignedRelayPortsSerializer(serializers.Serializer):
    server = AssignedRelayPortSerializer()
    client = AssignedRelayPortSerializer()


class AssignedStandbySerializer(serializers.Serializer):
    ip = serializers.IPAddressField()
    host = serializers.CharField()
    ipv4 = serializers.IPAddressField(protocol="IPv4", allow_null=True)
    ipv6 = serializers.IPAddressField(protocol="IPv6", allow_null=True)
    ports = AssignedRelayPortsSerializer(help_text="Either port.")
    location = serializers.CharField()
    relay_ips = serializers.ListField(child=serializers.IPAddressField(), help_text="To be tried in this order.")
    connect_token = serializers.CharField()


class GroupAssignmentSerializer(serializers.Serializer):
    fqdn = serializers.CharField(help_text="Of the relay.")
    public_ip = serializers.CharField()
    ports = AssignedPortsSerializer()
    location = AssignedLocationSerializer(allow_null=True)
    request_id = serializers.CharField(help_text="The relay session.")
    match_id = serializers.CharField()
    placement = serializers.CharField(help_text="The URL of the explanation of the relay's choice.")


class AssignmentSerializer(GroupAssignmentSerializer):
    """Contains the secrets of the player."""

    expires_at = serializers.CharField()
    relay_ips = serializers.ListField(
        child=serializers.CharField(), help_text="Addresses of the relay for this player, in the order to try them."
    )
    websocket_url = serializers.CharField(
        allow_null=True, help_text="Where this player reaches the relay if its network blocks UDP; null: nowhere."
    )
    seat = Seat(help_text="0: the host.")
    is_host = serializers.BooleanField()
    player_id = serializers.CharField()
    players = AssignedPlayerSerializer(many=True)
    session_token = Token(help_text="edgegap dialect: the session id.")
    user_token = Token(help_text="edgegap dialect: the user id.")
    connect_token = serializers.CharField(allow_null=True, help_text="native dialect.")
    seat_key = serializers.CharField(allow_null=True, help_text="native dialect.")
    offer_key = serializers.CharField(
        allow_null=True, help_text="Base64url: the seat keys at other relays derive from it. Null: no other relay."
    )
    standby = AssignedStandbySerializer(
        allow_null=True, help_text="The relay that this player uses if the first one fails. Null: there is none."
    )
    direct_mode = serializers.ChoiceField(
        choices=["relay_only", "ask", "direct"],
        help_text="Whether this player may exchange packets with others without the relay.",
    )
    peer_keys = serializers.CharField(
        allow_null=True, help_text="Base64url: the keys for direct paths. Null if direct_mode is relay_only."
    )
    rejoin_key = serializers.CharField(help_text="Lets a later ticket of this player_id return to the same seat.")
    host_key = serializers.CharField(
        allow_null=True, help_text="For the host only: permits a backfill of the session with a player's key."
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
    player_id = serializers.CharField(help_text="The id that other players see.")
    created_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField()
    status = serializers.ChoiceField(choices=Status.choices)
    reason = serializers.CharField(help_text="Why it was cancelled.")
    assignment = AssignmentSerializer(allow_null=True)


_TICKET = TicketSerializer()  # creating one copies all its fields


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
    """The state of the first member: all members of a group share their status and match."""

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
    assigned_ticket = serializers.SerializerMethodField(help_text="The group that joins; null until it is found.")
    attributes = serializers.JSONField()
    expires_at = serializers.DateTimeField()

    @extend_schema_field(serializers.JSONField(allow_null=True))
    def get_assigned_ticket(self, backfill: Backfill) -> dict[str, Any] | None:
        """The first ticket of the group, and the ids of all its players. Ids of tickets are secret, so there are
        none."""
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

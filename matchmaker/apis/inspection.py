"""What is in the pool, and which matches were made, for a tenant's backend and its operators."""

from collections.abc import Mapping
from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from web.fields.numbers import Count, Seconds, Share, Version
from web.http.input_warnings import InputWarning, warn
from web.http.paging import NEXT_HELP
from web.openapi import error_responses

from ..models import Profile
from ..selectors.matches import match_get, matches_of
from ..selectors.tickets import tickets_of
from .access import tenant_of
from .paging import PageQuerySerializer, page, page_query
from .profiles import ConfigureApi


class InspectQuerySerializer(PageQuerySerializer):
    profile = serializers.CharField(
        max_length=64, required=False, allow_blank=True, default="", help_text="Only of this profile."
    )


class InspectTicketsApi(ConfigureApi):
    """Ids of players, not of tickets: those are secrets."""

    class OutputSerializer(serializers.Serializer):
        class ItemSerializer(serializers.Serializer):
            player_id = serializers.CharField()
            profile = serializers.CharField(source="version.profile.name")
            version = Version(source="version.number")
            group_id = serializers.UUIDField(allow_null=True)
            match_id = serializers.CharField(allow_null=True)
            status = serializers.CharField()
            attributes = serializers.JSONField()
            created_at = serializers.DateTimeField()
            failures = Count()

        count = Count(help_text="The total number.")
        tickets = ItemSerializer(many=True, help_text="Newest first.")
        next_cursor = serializers.CharField(allow_null=True, help_text=NEXT_HELP)

    @extend_schema(
        operation_id="inspect_tickets",
        parameters=[InspectQuerySerializer],
        responses={200: OutputSerializer, **error_responses(400)},
    )
    def get(self, request: Request) -> Response:
        answer = _inspected("tickets", tickets_of(tenant=tenant_of(request)), request)
        return Response(self.OutputSerializer(answer).data)


class MatchItemSerializer(serializers.Serializer):
    id = serializers.CharField()
    profile = serializers.CharField(source="version.profile.name")
    version = Version(source="version.number")
    state = serializers.CharField()
    teams = serializers.JSONField()
    seats = serializers.JSONField()
    session_id = serializers.CharField()
    location = serializers.CharField()
    quality = Share()
    is_full = serializers.BooleanField()
    average_wait_time = Seconds()
    attempts = Count()
    last_error = serializers.CharField()
    created_at = serializers.DateTimeField()


class InspectMatchApi(ConfigureApi):
    class OutputSerializer(MatchItemSerializer):
        class ExplanationSerializer(serializers.Serializer):
            class RuleSerializer(serializers.Serializer):
                rule = serializers.CharField()
                type = serializers.CharField()
                actual = serializers.CharField(help_text="How far the players are apart.")
                allowed = serializers.CharField()

            rules = RuleSerializer(many=True, default=list)
            wait_times = serializers.DictField(
                child=Seconds(), default=dict, help_text="Player id: seconds of waiting before the match."
            )

        explanation = ExplanationSerializer()

    @extend_schema(operation_id="inspect_match", responses={200: OutputSerializer, **error_responses(404)})
    def get(self, request: Request, match_id: str) -> Response:
        """A match, and why its players were matched. Available while its session may exist, and for at least a day."""
        match = match_get(tenant=tenant_of(request), match_id=match_id)
        return Response(self.OutputSerializer(match).data)


class InspectMatchesApi(ConfigureApi):
    class OutputSerializer(serializers.Serializer):
        count = Count(help_text="The total number.")
        matches = MatchItemSerializer(many=True, help_text="Newest first.")
        next_cursor = serializers.CharField(allow_null=True, help_text=NEXT_HELP)

    @extend_schema(
        operation_id="inspect_matches",
        parameters=[InspectQuerySerializer],
        responses={200: OutputSerializer, **error_responses(400)},
    )
    def get(self, request: Request) -> Response:
        answer = _inspected("matches", matches_of(tenant=tenant_of(request)), request)
        return Response(self.OutputSerializer(answer).data)


def _inspected(name: str, rows: QuerySet[Any], request: Request) -> dict[str, Any]:
    """A page of the rows, newest first, under `name`, with their number and the cursor of the next page."""
    query = page_query(InspectQuerySerializer, request)
    if wanted := _requested_profile(query, request):
        rows = rows.filter(version__profile__name=wanted)
    part, following = page(query, rows, ("-created_at", "id"))
    return {"count": rows.count(), name: part, "next_cursor": following}


def _requested_profile(query: Mapping[str, Any], request: Request) -> str:
    wanted = str(query["profile"])
    if wanted and not Profile.objects.filter(tenant=tenant_of(request), name=wanted).exists():
        warn([InputWarning("profile", "profile_unknown", "There is no profile of this name.")])
    return wanted

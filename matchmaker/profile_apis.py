"""HTTP, for a studio's backend and people: profiles and their versions, and what is in the pool."""

from collections.abc import Mapping
from typing import Any, TypeVar

from django.db.models import Model, QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from web.fields.numbers import INT32, Count, Integer, Seconds, Share, Version
from web.http.input_warnings import InputWarning, RequestSerializer, warn
from web.http.paging import NEXT_HELP, CursorField, part_after
from web.openapi import error_responses

from . import selectors, services
from .access import MayConfigure, tenant_of
from .matching.profile_parser import ProfileInvalid, differences, parse
from .models import Profile, ProfileVersion
from .serializers import FullVersionSerializer, VersionSerializer, check_size

SHOWN = 200  # of a list, in one answer
M = TypeVar("M", bound=Model)
NUMBER = OpenApiParameter(
    "number", {"type": "integer", "minimum": 1, "maximum": INT32}, OpenApiParameter.PATH, description="Of a version."
)


class ConfigureApi(APIView):
    """Base: for a backend's key."""

    permission_classes = (MayConfigure,)


class ConfigSerializer(RequestSerializer):
    config = serializers.DictField(help_text="One of the `profiles` of an Edgegap configuration; docs/matchmaking.md.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        check_size(attrs, "config")
        return attrs


class PartQuerySerializer(RequestSerializer):
    cursor = CursorField()
    limit = Integer(1, SHOWN, default=SHOWN)


def _query(kind: type[PartQuerySerializer], request: Request) -> dict[str, Any]:
    serializer = kind(data=request.query_params)
    serializer.is_valid(raise_exception=True)
    return serializer.validated_data


def _part(query: Mapping[str, Any], rows: QuerySet[M], order: tuple[str, ...]) -> tuple[list[M], str | None]:
    return part_after(rows, order, query.get("cursor"), query["limit"])


class ProfilesApi(ConfigureApi):
    class OutputSerializer(serializers.Serializer):
        class ItemSerializer(serializers.Serializer):
            name = serializers.CharField()
            active = Version(source="active.number", allow_null=True, default=None)

        profiles = ItemSerializer(many=True)
        next_cursor = serializers.CharField(allow_null=True, help_text=NEXT_HELP)

    @extend_schema(
        operation_id="profile_list",
        parameters=[PartQuerySerializer],
        responses={200: OutputSerializer, **error_responses(400)},
    )
    def get(self, request: Request) -> Response:
        rows = Profile.objects.select_related("active").filter(tenant=tenant_of(request))
        found, following = _part(_query(PartQuerySerializer, request), rows, ("name",))
        return Response(self.OutputSerializer({"profiles": found, "next_cursor": following}).data)


class ProfileApi(ConfigureApi):
    class OutputSerializer(serializers.Serializer):
        name = serializers.CharField()
        active = FullVersionSerializer(allow_null=True)
        versions = VersionSerializer(many=True, help_text="The newest first.")
        next_cursor = serializers.CharField(allow_null=True, help_text=NEXT_HELP)

    @extend_schema(
        operation_id="profile_get",
        parameters=[PartQuerySerializer],
        responses={200: OutputSerializer, **error_responses(400, 404)},
    )
    def get(self, request: Request, name: str) -> Response:
        profile = selectors.profile_get(tenant=tenant_of(request), name=name)
        rows = ProfileVersion.objects.select_related("profile").filter(profile=profile)
        versions, following = _part(_query(PartQuerySerializer, request), rows, ("-number",))
        answer = {"name": profile.name, "active": profile.active, "versions": versions, "next_cursor": following}
        return Response(self.OutputSerializer(answer).data)


class ProfileValidateApi(ConfigureApi):
    class OutputSerializer(serializers.Serializer):
        class ProblemSerializer(serializers.Serializer):
            path = serializers.CharField()
            reason = serializers.CharField()

        valid = serializers.BooleanField()
        problems = ProblemSerializer(many=True)

    @extend_schema(
        operation_id="profile_validate",
        request=ConfigSerializer,
        responses={200: OutputSerializer, **error_responses(400, 413, 415)},
    )
    def post(self, request: Request) -> Response:
        """Check a configuration without keeping it."""
        serializer = ConfigSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        try:
            parse(serializer.validated_data["config"])
        except ProfileInvalid as error:
            return Response(self.OutputSerializer({"valid": False, "problems": error.problems}).data)
        return Response(self.OutputSerializer({"valid": True, "problems": []}).data)


class ProfilesImportApi(ConfigureApi):
    class InputSerializer(serializers.Serializer):
        config = serializers.DictField(help_text="A whole Edgegap configuration: `profiles`, and what goes for all.")
        note = serializers.CharField(max_length=200, required=False, allow_blank=True)
        activate = serializers.BooleanField(default=False)

    class OutputSerializer(serializers.Serializer):
        class ItemSerializer(serializers.Serializer):
            profile = serializers.CharField(source="profile.name")
            number = Version()

        versions = ItemSerializer(many=True)

    @extend_schema(
        operation_id="profiles_import",
        request=InputSerializer,
        responses={201: OutputSerializer, **error_responses(400, 413, 415)},
    )
    def post(self, request: Request) -> Response:
        """A version of each profile of a configuration file, or of none when anything is wrong with any of them."""
        serializer = self.InputSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        versions = services.profiles_import(tenant=tenant_of(request), **serializer.validated_data)
        return Response(self.OutputSerializer({"versions": versions}).data, status=201)


class VersionsApi(ConfigureApi):
    class InputSerializer(ConfigSerializer):
        note = serializers.CharField(max_length=200, required=False, allow_blank=True)
        activate = serializers.BooleanField(default=False)

    @extend_schema(
        operation_id="profile_version_create",
        request=InputSerializer,
        responses={201: FullVersionSerializer, **error_responses(400, 404, 413, 415)},
    )
    def post(self, request: Request, name: str) -> Response:
        """A new version; the first one makes the profile. What is wrong is named by path and reason."""
        serializer = self.InputSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        version = services.profile_version_create(tenant=tenant_of(request), name=name, **serializer.validated_data)
        version.profile.refresh_from_db()
        return Response(FullVersionSerializer(version).data, status=201)


class VersionApi(ConfigureApi):
    @extend_schema(
        operation_id="profile_version_get",
        parameters=[NUMBER],
        responses={200: FullVersionSerializer, **error_responses(404)},
    )
    def get(self, request: Request, name: str, number: int) -> Response:
        profile = selectors.profile_get(tenant=tenant_of(request), name=name)
        return Response(FullVersionSerializer(selectors.version_get(profile=profile, number=number)).data)


class VersionActivateApi(ConfigureApi):
    @extend_schema(
        operation_id="profile_version_activate",
        parameters=[NUMBER],
        request=None,
        responses={200: VersionSerializer, **error_responses(404, 415)},
    )
    def post(self, request: Request, name: str, number: int) -> Response:
        """Tickets are made under this version from now on; those who wait and fit it move over."""
        version = services.profile_activate(tenant=tenant_of(request), name=name, number=number)
        return Response(_fresh(version))


class ProfileRollbackApi(ConfigureApi):
    class QuerySerializer(RequestSerializer):
        active = Version(
            required=False,
            help_text="Only if this version is the active one: with it a request sent again does not go back twice.",
        )

    @extend_schema(
        operation_id="profile_rollback",
        parameters=[QuerySerializer],
        request=None,
        responses={200: VersionSerializer, **error_responses(400, 404, 409, 415)},
    )
    def post(self, request: Request, name: str) -> Response:
        """Back to the version that was active before."""
        serializer = self.QuerySerializer(data=request.query_params)
        serializer.is_valid(raise_exception=True)
        known = serializer.validated_data.get("active")
        version = services.profile_rollback(tenant=tenant_of(request), name=name, known_active=known)
        return Response(_fresh(version))


def _fresh(version: ProfileVersion) -> Any:
    return VersionSerializer(ProfileVersion.objects.select_related("profile").get(pk=version.pk)).data


class ProfileDiffApi(ConfigureApi):
    class QuerySerializer(RequestSerializer):
        old = Version(help_text="A version.")
        new = Version(help_text="Another.")

    class OutputSerializer(serializers.Serializer):
        class ChangeSerializer(serializers.Serializer):
            path = serializers.CharField()
            old = serializers.JSONField(allow_null=True)
            new = serializers.JSONField(allow_null=True)

        changes = ChangeSerializer(many=True)

    @extend_schema(
        operation_id="profile_diff",
        parameters=[QuerySerializer],
        responses={200: OutputSerializer, **error_responses(400, 404)},
    )
    def get(self, request: Request, name: str) -> Response:
        """Each setting in which two versions differ."""
        serializer = self.QuerySerializer(data=request.query_params)
        serializer.is_valid(raise_exception=True)
        profile = selectors.profile_get(tenant=tenant_of(request), name=name)
        old, new = (
            selectors.version_get(profile=profile, number=serializer.validated_data[which]).config
            for which in ("old", "new")
        )
        changes = [{"path": path, "old": before, "new": after} for path, before, after in differences(old, new)]
        return Response(self.OutputSerializer({"changes": changes}).data)


class InspectQuerySerializer(PartQuerySerializer):
    profile = serializers.CharField(
        max_length=64, required=False, allow_blank=True, default="", help_text="Only of this profile."
    )


class InspectTicketsApi(ConfigureApi):
    """Players' ids, not the ids of tickets, which are secrets."""

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

        count = Count(help_text="Of all.")
        tickets = ItemSerializer(many=True, help_text="The newest first.")
        next_cursor = serializers.CharField(allow_null=True, help_text=NEXT_HELP)

    @extend_schema(
        operation_id="inspect_tickets",
        parameters=[InspectQuerySerializer],
        responses={200: OutputSerializer, **error_responses(400)},
    )
    def get(self, request: Request) -> Response:
        found = selectors.tickets_of(tenant=tenant_of(request))
        query = _query(InspectQuerySerializer, request)
        if wanted := _profile_wanted(query, request):
            found = found.filter(version__profile__name=wanted)
        part, following = _part(query, found, ("-created_at", "id"))
        answer = {"count": found.count(), "tickets": part, "next_cursor": following}
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
                child=Seconds(), default=dict, help_text="Player id: seconds before the match."
            )

        explanation = ExplanationSerializer()

    @extend_schema(operation_id="inspect_match", responses={200: OutputSerializer, **error_responses(404)})
    def get(self, request: Request, match_id: str) -> Response:
        """One match, and why these players were put together; for as long as its session may live, a day at least."""
        match = selectors.match_get(tenant=tenant_of(request), match_id=match_id)
        return Response(self.OutputSerializer(match).data)


class InspectMatchesApi(ConfigureApi):
    class OutputSerializer(serializers.Serializer):
        count = Count(help_text="Of all.")
        matches = MatchItemSerializer(many=True, help_text="The newest first.")
        next_cursor = serializers.CharField(allow_null=True, help_text=NEXT_HELP)

    @extend_schema(
        operation_id="inspect_matches",
        parameters=[InspectQuerySerializer],
        responses={200: OutputSerializer, **error_responses(400)},
    )
    def get(self, request: Request) -> Response:
        found = selectors.matches_of(tenant=tenant_of(request))
        query = _query(InspectQuerySerializer, request)
        if wanted := _profile_wanted(query, request):
            found = found.filter(version__profile__name=wanted)
        part, following = _part(query, found, ("-created_at", "id"))
        answer = {"count": found.count(), "matches": part, "next_cursor": following}
        return Response(self.OutputSerializer(answer).data)


def _profile_wanted(query: Mapping[str, Any], request: Request) -> str:
    wanted = str(query["profile"])
    if wanted and not Profile.objects.filter(tenant=tenant_of(request), name=wanted).exists():
        warn([InputWarning("profile", "profile_unknown", "There is no profile of this name.")])
    return wanted

"""Profiles and their versions, for a tenant's backend and its operators."""

from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from web.fields.numbers import INT32, Version
from web.http.input_warnings import RequestSerializer
from web.http.paging import NEXT_HELP
from web.openapi import error_responses

from ..matching.profile_parser import ProfileInvalid, differences, parse
from ..models import Profile, ProfileVersion
from ..selectors.profiles import profile_get, version_get
from ..services.profiles import profile_activate, profile_rollback, profile_version_create, profiles_import
from .access import MayConfigure, tenant_of
from .paging import PageQuerySerializer, page, page_query
from .serializers import FullVersionSerializer, VersionSerializer, check_size

NUMBER = OpenApiParameter(
    "number",
    {"type": "integer", "minimum": 1, "maximum": INT32},
    OpenApiParameter.PATH,
    description="The number of a version.",
)


class ConfigureApi(APIView):
    """Base class of the APIs for the keys of backends."""

    permission_classes = (MayConfigure,)


class ConfigSerializer(RequestSerializer):
    config = serializers.DictField(
        help_text="One of the `profiles` of an Edgegap configuration file, see docs/matchmaking.md."
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        check_size(attrs, "config")
        return attrs


class ProfilesApi(ConfigureApi):
    class OutputSerializer(serializers.Serializer):
        class ItemSerializer(serializers.Serializer):
            name = serializers.CharField()
            active = Version(source="active.number", allow_null=True, default=None)

        profiles = ItemSerializer(many=True)
        next_cursor = serializers.CharField(allow_null=True, help_text=NEXT_HELP)

    @extend_schema(
        operation_id="profile_list",
        parameters=[PageQuerySerializer],
        responses={200: OutputSerializer, **error_responses(400)},
    )
    def get(self, request: Request) -> Response:
        rows = Profile.objects.select_related("active").filter(tenant=tenant_of(request))
        found, following = page(page_query(PageQuerySerializer, request), rows, ("name",))
        return Response(self.OutputSerializer({"profiles": found, "next_cursor": following}).data)


class ProfileApi(ConfigureApi):
    class OutputSerializer(serializers.Serializer):
        name = serializers.CharField()
        active = FullVersionSerializer(allow_null=True)
        versions = VersionSerializer(many=True, help_text="Newest first.")
        next_cursor = serializers.CharField(allow_null=True, help_text=NEXT_HELP)

    @extend_schema(
        operation_id="profile_get",
        parameters=[PageQuerySerializer],
        responses={200: OutputSerializer, **error_responses(400, 404)},
    )
    def get(self, request: Request, name: str) -> Response:
        profile = profile_get(tenant=tenant_of(request), name=name)
        rows = ProfileVersion.objects.select_related("profile").filter(profile=profile)
        versions, following = page(page_query(PageQuerySerializer, request), rows, ("-number",))
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
        """Validate a configuration without storing it."""
        serializer = ConfigSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        try:
            parse(serializer.validated_data["config"])
        except ProfileInvalid as error:
            return Response(self.OutputSerializer({"valid": False, "problems": error.problems}).data)
        return Response(self.OutputSerializer({"valid": True, "problems": []}).data)


class ProfilesImportApi(ConfigureApi):
    class InputSerializer(serializers.Serializer):
        config = serializers.DictField(
            help_text="A whole Edgegap configuration file: `profiles`, and settings for all of them."
        )
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
        """Create a version of each profile in a configuration file, or none at all when any of them is invalid."""
        serializer = self.InputSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        versions = profiles_import(tenant=tenant_of(request), **serializer.validated_data)
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
        """Create a version; the first one creates the profile. Each problem is reported with its path and reason."""
        serializer = self.InputSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        version = profile_version_create(tenant=tenant_of(request), name=name, **serializer.validated_data)
        version.profile.refresh_from_db()
        return Response(FullVersionSerializer(version).data, status=201)


class VersionApi(ConfigureApi):
    @extend_schema(
        operation_id="profile_version_get",
        parameters=[NUMBER],
        responses={200: FullVersionSerializer, **error_responses(404)},
    )
    def get(self, request: Request, name: str, number: int) -> Response:
        profile = profile_get(tenant=tenant_of(request), name=name)
        return Response(FullVersionSerializer(version_get(profile=profile, number=number)).data)


class VersionActivateApi(ConfigureApi):
    @extend_schema(
        operation_id="profile_version_activate",
        parameters=[NUMBER],
        request=None,
        responses={200: VersionSerializer, **error_responses(404, 415)},
    )
    def post(self, request: Request, name: str, number: int) -> Response:
        """Use this version for new tickets from now on. Waiting tickets that fit it move to it."""
        version = profile_activate(tenant=tenant_of(request), name=name, number=number)
        return Response(_reloaded(version))


class ProfileRollbackApi(ConfigureApi):
    class QuerySerializer(RequestSerializer):
        active = Version(
            required=False,
            help_text="Roll back only if this version is active, so that a repeated request "
            "does not roll back two versions.",
        )

    @extend_schema(
        operation_id="profile_rollback",
        parameters=[QuerySerializer],
        request=None,
        responses={200: VersionSerializer, **error_responses(400, 404, 409, 415)},
    )
    def post(self, request: Request, name: str) -> Response:
        """Reactivate the version that was active before."""
        serializer = self.QuerySerializer(data=request.query_params)
        serializer.is_valid(raise_exception=True)
        known = serializer.validated_data.get("active")
        version = profile_rollback(tenant=tenant_of(request), name=name, known_active=known)
        return Response(_reloaded(version))


def _reloaded(version: ProfileVersion) -> Any:
    return VersionSerializer(ProfileVersion.objects.select_related("profile").get(pk=version.pk)).data


class ProfileDiffApi(ConfigureApi):
    class QuerySerializer(RequestSerializer):
        old = Version(help_text="The number of a version.")
        new = Version(help_text="The number of another version.")

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
        """List the settings in which two versions differ."""
        serializer = self.QuerySerializer(data=request.query_params)
        serializer.is_valid(raise_exception=True)
        profile = profile_get(tenant=tenant_of(request), name=name)
        old, new = (
            version_get(profile=profile, number=serializer.validated_data[which]).config for which in ("old", "new")
        )
        changes = [{"path": path, "old": before, "new": after} for path, before, after in differences(old, new)]
        return Response(self.OutputSerializer({"changes": changes}).data)

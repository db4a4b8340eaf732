"""Groups and their members (EDGEGAP.md 5.2)."""

from uuid import UUID

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from web.http.input_warnings import RequestSerializer
from web.openapi import error_responses

from ..selectors.tickets import group_members, member_get
from ..services.groups import group_create, group_remove, member_add, member_ready, member_remove
from ..services.tickets import Player
from .access import about_profile, requester, take_tickets, tenant_of
from .players import IDEMPOTENCY_KEY, MemberInputSerializer, PlayApi, validated
from .serializers import GroupSerializer, MemberSerializer


class GroupsApi(PlayApi):
    @extend_schema(
        operation_id="group_create",
        request=MemberInputSerializer,
        parameters=[IDEMPOTENCY_KEY],
        responses={201: MemberSerializer, **error_responses(400, 409, 413, 415, 422)},
    )
    def post(self, request: Request) -> Response:
        """Create a group and its first member. The group searches once every member is ready."""
        wanted = validated(MemberInputSerializer, request)
        is_ready = wanted.pop("is_ready")
        take_tickets(request, 1)
        member = group_create(requester(request), Player(**wanted), is_ready=is_ready)
        return Response(MemberSerializer(member).data, status=201)


class GroupApi(PlayApi):
    @extend_schema(operation_id="group_get", responses={200: GroupSerializer, **error_responses(404)})
    def get(self, request: Request, group_id: UUID) -> Response:
        members = group_members(tenant=tenant_of(request), group_id=group_id)
        about_profile(request, members[0].version.profile.name)
        return Response(GroupSerializer(members[0]).data)

    @extend_schema(operation_id="group_delete", responses={204: None, **error_responses(404, 409)})
    def delete(self, request: Request, group_id: UUID) -> Response:
        """Cancel the group for all its members."""
        group_remove(tenant=tenant_of(request), group_id=group_id)
        return Response(status=204)


class MembersApi(PlayApi):
    @extend_schema(
        operation_id="member_create",
        request=MemberInputSerializer,
        parameters=[IDEMPOTENCY_KEY],
        responses={201: MemberSerializer, **error_responses(400, 404, 409, 413, 415, 422)},
    )
    def post(self, request: Request, group_id: UUID) -> Response:
        """Join a group that is not searching yet."""
        wanted = validated(MemberInputSerializer, request)
        is_ready = wanted.pop("is_ready")
        take_tickets(request, 1)
        member = member_add(requester(request), Player(**wanted), group_id=group_id, is_ready=is_ready)
        return Response(MemberSerializer(member).data, status=201)


class MemberApi(PlayApi):
    class InputSerializer(RequestSerializer):
        is_ready = serializers.BooleanField()

    @extend_schema(operation_id="member_get", responses={200: MemberSerializer, **error_responses(404)})
    def get(self, request: Request, group_id: UUID, member_id: str) -> Response:
        member = member_get(tenant=tenant_of(request), group_id=group_id, member_id=member_id)
        about_profile(request, member.version.profile.name)
        return Response(MemberSerializer(member).data)

    @extend_schema(
        operation_id="member_update",
        request=InputSerializer,
        responses={200: MemberSerializer, **error_responses(400, 404, 409, 413, 415)},
    )
    def patch(self, request: Request, group_id: UUID, member_id: str) -> Response:
        is_ready = validated(self.InputSerializer, request)["is_ready"]
        member = member_ready(tenant=tenant_of(request), group_id=group_id, member_id=member_id, is_ready=is_ready)
        about_profile(request, member.version.profile.name)
        return Response(MemberSerializer(member).data)

    @extend_schema(operation_id="member_delete", responses={204: None, **error_responses(404, 409)})
    def delete(self, request: Request, group_id: UUID, member_id: str) -> Response:
        """Leave the group. While it is searching, this cancels it for all members."""
        member_remove(tenant=tenant_of(request), group_id=group_id, member_id=member_id)
        return Response(status=204)

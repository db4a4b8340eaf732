"""Players of a session, which Edgegap calls users: add one, remove one."""

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from relaymgr.authentication import calling_tenant
from web.fields.address import AddressField
from web.fields.numbers import Token
from web.http.input_warnings import RequestSerializer
from web.openapi import error_responses

from ..serializers import SessionSerializer, SessionUserSerializer
from ..services import seat_authorize, seat_revoke
from .input_serializers import PlayerSerializer
from .pending_nodes import PendingNodesSerializer, pending_response
from .unknown_names import users_known


class UserAuthorizeApi(APIView):
    class InputSerializer(PlayerSerializer):
        session_id = serializers.CharField(max_length=100)
        user_ip = AddressField(required=False, allow_null=True)
        ip_field = "user_ip"

    @extend_schema(
        operation_id="relay_user_authorize",
        request=InputSerializer,
        responses={200: SessionUserSerializer, **error_responses(400, 404, 409, 413, 415)},
    )
    def post(self, request: Request) -> Response:
        """Add a player to a ready session. A player_id that has a seat already gets that seat."""
        serializer = self.InputSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        (user,) = users_known([serializer.validated_data], "")
        session, seat = seat_authorize(tenant=calling_tenant(request), session_id=user.pop("session_id"), user=user)
        return Response(SessionUserSerializer(session, context={"seat": seat, "peer_keys": True}).data)


class UserRevokeApi(APIView):
    class InputSerializer(RequestSerializer):
        session_id = serializers.CharField(max_length=100)
        authorization_token = Token(help_text="The user's, as a number or as text.")

    @extend_schema(
        operation_id="relay_user_revoke",
        request=InputSerializer,
        responses={
            200: SessionSerializer,
            202: PendingNodesSerializer,
            204: None,
            **error_responses(400, 404, 413, 415),
        },
    )
    def post(self, request: Request) -> Response:
        """Remove a player. When this call returns, none of its packets are forwarded. 202: other relays of the session
        have not confirmed yet. 204: it was the last one."""
        serializer = self.InputSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        found = serializer.validated_data
        token = found["authorization_token"]
        session, pending = seat_revoke(tenant=calling_tenant(request), session_id=found["session_id"], token=token)
        if pending:
            return pending_response(session.pk, pending)
        return Response(SessionSerializer(session).data) if session.active_seats else Response(status=204)

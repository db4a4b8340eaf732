"""HTTP API for a tenant that answers its players' requests about their data (docs/data-protection.md)."""

from typing import TYPE_CHECKING, Any, cast

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from relaymgr.authentication import caller
from relaymgr.operations.player_data import Player, player_erase, player_export
from web.audit.via import Via
from web.fields.address import AddressField
from web.fields.numbers import Count
from web.http.input_warnings import RequestSerializer
from web.openapi import error_responses

if TYPE_CHECKING:
    from relaymgr.tenants.models import Tenant


class PlayerDataInputSerializer(RequestSerializer):
    """Identifies the player by one of the two."""

    player_id = serializers.CharField(max_length=64, required=False, help_text="As in `users` of a session.")
    ip = AddressField(required=False, help_text="The address of a player without an id.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if len(attrs) != 1:
            raise serializers.ValidationError("Pass either player_id or ip.", "one_of")
        return attrs


class PlayerExportApi(APIView):
    class OutputSerializer(serializers.Serializer):
        tenant = serializers.CharField()
        player_id = serializers.CharField(allow_blank=True)
        ip = serializers.CharField(allow_blank=True)
        at = serializers.DateTimeField()
        seats = serializers.ListField(child=serializers.DictField(), help_text="The newest 1,000 seats in sessions.")
        more_seats = serializers.BooleanField()
        webhooks = serializers.ListField(child=serializers.DictField())
        tickets = serializers.ListField(child=serializers.DictField())
        matches = serializers.ListField(child=serializers.DictField())

    @extend_schema(
        operation_id="player_export",
        request=PlayerDataInputSerializer,
        responses={200: OutputSerializer, **error_responses(400, 413, 415)},
    )
    def post(self, request: Request) -> Response:
        """Return all stored data of one player of the tenant, without tokens."""
        return Response(player_export(**_input(request)))


class PlayerEraseApi(APIView):
    class OutputSerializer(serializers.Serializer):
        seats = Count()
        matchmaker_rows = Count()
        live_sessions = Count(
            help_text="Live sessions in which the player still has a seat, now unnamed. Revoke it to remove the player."
        )

    @extend_schema(
        operation_id="player_erase",
        request=PlayerDataInputSerializer,
        responses={200: OutputSerializer, **error_responses(400, 413, 415)},
    )
    def post(self, request: Request) -> Response:
        """Delete all stored data of one player of the tenant, permanently. Idempotent."""
        return Response(player_erase(**_input(request)))


def _input(request: Request) -> dict[str, Any]:
    serializer = PlayerDataInputSerializer(data=request.data)
    serializer.is_valid(raise_exception=True)
    found = caller(request)
    return {
        "tenant": cast("Tenant", found.tenant),  # the permission requires a key of a tenant
        "player": Player(**serializer.validated_data),
        "via": Via.API,
        "actor": f"key {found.key.prefix}",
    }

"""HTTP: a studio answers the requests of its players for their data (docs/data-protection.md)."""

from typing import Any, cast

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from relaymgr.authentication import caller
from relaymgr.operations.player_data import Player, player_erase, player_export
from relaymgr.tenants.models import Tenant
from web.audit.via import Via
from web.fields.address import AddressField
from web.fields.numbers import Count
from web.http.input_warnings import RequestSerializer
from web.openapi import error_responses


class PlayerDataInputSerializer(RequestSerializer):
    """Which player: one of the two."""

    player_id = serializers.CharField(max_length=64, required=False, help_text="As in `users` of a session.")
    ip = AddressField(required=False, help_text="An address, where players have no id.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if len(attrs) != 1:
            raise serializers.ValidationError("Give player_id or ip, and not both.", "one_of")
        return attrs


class PlayerExportApi(APIView):
    class OutputSerializer(serializers.Serializer):
        tenant = serializers.CharField()
        player_id = serializers.CharField(allow_blank=True)
        ip = serializers.CharField(allow_blank=True)
        at = serializers.DateTimeField()
        seats = serializers.ListField(child=serializers.DictField(), help_text="In sessions, the newest 1,000.")
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
        """All that is kept of one player of the tenant. Tokens are not among it."""
        return Response(player_export(**_asked(request)))


class PlayerEraseApi(APIView):
    class OutputSerializer(serializers.Serializer):
        seats = Count()
        matchmaker_rows = Count()
        live_sessions = Count(
            help_text="In which the player has a seat still, without a name now. Revoke it to end that."
        )

    @extend_schema(
        operation_id="player_erase",
        request=PlayerDataInputSerializer,
        responses={200: OutputSerializer, **error_responses(400, 413, 415)},
    )
    def post(self, request: Request) -> Response:
        """Delete what is kept of one player of the tenant, for good. Safe to repeat."""
        return Response(player_erase(**_asked(request)))


def _asked(request: Request) -> dict[str, Any]:
    serializer = PlayerDataInputSerializer(data=request.data)
    serializer.is_valid(raise_exception=True)
    found = caller(request)
    return {
        "tenant": cast(Tenant, found.tenant),  # MayUseRelays lets no key in that has none
        "player": Player(**serializer.validated_data),
        "via": Via.API,
        "actor": f"key {found.key.prefix}",
    }

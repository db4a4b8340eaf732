"""The API for a tenant's backend to read and change its own settings."""

from typing import cast

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from nodeapi.grants import DIRECT_MODES, MAX_DIRECT_GRACE
from relaymgr.authentication import MayUseRelays, caller
from relaymgr.tenants.models import Tenant
from relaymgr.tenants.services import cors_origins_set
from web.audit.services import action_record
from web.audit.via import Via
from web.fields.collections import BoundedList
from web.fields.numbers import Count, Integer
from web.http.input_warnings import RequestSerializer
from web.http.origins import MAX_LENGTH, MAX_ORIGINS
from web.openapi import error_responses

ORIGINS_HELP = "Origins of browser pages that may read responses to the tenant's keys: https://play.example.com, https://*.example.com."


class TenantApi(APIView):
    permission_classes = (MayUseRelays,)

    class InputSerializer(RequestSerializer):
        allowed_cors_origins = BoundedList(
            child=serializers.CharField(max_length=MAX_LENGTH), max_length=MAX_ORIGINS, help_text=ORIGINS_HELP
        )

    class OutputSerializer(serializers.Serializer):
        slug = serializers.CharField()
        name = serializers.CharField()
        requests_per_minute = Count(help_text="For each key.")
        max_sessions = Count(help_text="Maximum number of live sessions.")
        edgegap_enabled = serializers.BooleanField()
        direct_mode = serializers.ChoiceField(
            choices=DIRECT_MODES, help_text="The least strict mode that a session may have; set by the operator."
        )
        direct_grace = Integer(
            0, MAX_DIRECT_GRACE, help_text="Seconds for which direct paths go on without a relay; set by the operator."
        )
        standby_relays = serializers.BooleanField(
            help_text="Sessions that admit the native dialect only have a standby relay; set by the operator."
        )
        allowed_cors_origins = serializers.ListField(child=serializers.CharField(), help_text=ORIGINS_HELP)

    @extend_schema(operation_id="tenant_get", responses={200: OutputSerializer, **error_responses()})
    def get(self, request: Request) -> Response:
        """The key's own tenant."""
        return Response(self.OutputSerializer(_tenant(request)).data)

    @extend_schema(
        operation_id="tenant_update",
        request=InputSerializer,
        responses={200: OutputSerializer, **error_responses(400, 413, 415)},
    )
    def patch(self, request: Request) -> Response:
        """Replaces the list of allowed origins."""
        serializer = self.InputSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        tenant, origins = _tenant(request), serializer.validated_data["allowed_cors_origins"]
        cors_origins_set(tenant=tenant, origins=origins)
        actor, detail = caller(request).key.prefix, ", ".join(origins) or "none"
        action_record(via=Via.API, actor=actor, action="tenant.cors_origins", target=tenant.slug, detail=detail)
        return Response(self.OutputSerializer(tenant).data)


def _tenant(request: Request) -> Tenant:
    return cast(Tenant, caller(request).tenant)  # MayUseRelays requires a tenant

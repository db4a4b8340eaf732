"""Backfills (EDGEGAP.md 5.6)."""

from typing import Any
from uuid import UUID

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from web.http.input_warnings import RequestSerializer
from web.openapi import error_responses

from ..selectors.tickets import backfill_get
from ..services.backfills import backfill_create, backfill_delete
from .access import about_profile, requester, tenant_of
from .players import PlayApi, validated
from .serializers import BackfillSerializer, check_size

MAX_PLAYING = 255


class BackfillsApi(PlayApi):
    class InputSerializer(RequestSerializer):
        profile = serializers.CharField(max_length=64)
        attributes = serializers.DictField(
            help_text="`assignment`, with the session id as request_id, and attributes for the rules."
        )
        tickets = serializers.DictField(
            child=serializers.DictField(),
            required=False,
            help_text="The players of the match: {id: {attributes, ...}}.",
        )

        def validate_tickets(self, tickets: dict[str, Any]) -> dict[str, Any]:
            if len(tickets) > MAX_PLAYING or not all(
                isinstance(ticket.get("attributes", {}), dict) for ticket in tickets.values()
            ):
                raise serializers.ValidationError(f"At most {MAX_PLAYING}, each with an object of attributes.")
            return tickets

        def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
            check_size(attrs, "attributes", "tickets")
            return attrs

    @extend_schema(
        operation_id="backfill_create",
        request=InputSerializer,
        responses={201: BackfillSerializer, **error_responses(400, 403, 409, 413, 415)},
    )
    def post(self, request: Request) -> Response:
        """Request one more group for a match in play. A backfill expires after a minute; another one for the same
        session replaces it. Permitted for a backend, and for the host of the match with its `host_key`."""
        wanted = validated(self.InputSerializer, request)
        backfill = backfill_create(requester(request), **{"tickets": {}, **wanted})
        return Response(BackfillSerializer(backfill).data, status=201)


class BackfillApi(PlayApi):
    @extend_schema(operation_id="backfill_get", responses={200: BackfillSerializer, **error_responses(404)})
    def get(self, request: Request, backfill_id: UUID) -> Response:
        backfill = backfill_get(tenant=tenant_of(request), backfill_id=backfill_id)
        about_profile(request, backfill.version.profile.name)
        return Response(BackfillSerializer(backfill).data)

    @extend_schema(operation_id="backfill_delete", responses={204: None, **error_responses(404, 409)})
    def delete(self, request: Request, backfill_id: UUID) -> Response:
        backfill_delete(backfill=backfill_get(tenant=tenant_of(request), backfill_id=backfill_id))
        return Response(status=204)

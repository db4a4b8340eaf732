"""The grants that a node pulls when it starts and after it has lost contact (docs/node-api.md)."""

import base64

import msgspec
from django.http import HttpResponse
from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.views import APIView

from causeway_client.protocol.offers import MAX_DEADLINE
from nodeapi.grants import DIRECT_MODES, MAX_DIRECT_GRACE, OFFER_KINDS, ROLES
from nodeapi.membership import GrantList, TokenKey
from relaymgr.authentication import IsNode, calling_node
from relaymgr.nodes.selectors import token_keys_open
from relaymgr.nodes.services import grants_check
from web.fields.numbers import Count, Integer, Port, Seat, Token, UnixTime
from web.openapi import error_responses

from ..grants import grants_of_node


class NodeGrantsApi(APIView):
    permission_classes = (IsNode,)

    class OutputSerializer(serializers.Serializer):
        class TokenKeySerializer(serializers.Serializer):
            id = Token(source="key_id")
            key = serializers.CharField(help_text="Base64, 32 bytes.")

        class GrantSerializer(serializers.Serializer):
            class RateSerializer(serializers.Serializer):
                packets = Integer(0, 2**31)
                bytes = Integer(0, 2**31)

            class GrantSeatSerializer(serializers.Serializer):
                class GrantOfferSerializer(serializers.Serializer):
                    id = Token()
                    kind = serializers.ChoiceField(choices=OFFER_KINDS)
                    ip = serializers.IPAddressField(help_text="Of the offered node.")
                    second_ip = serializers.CharField(help_text="In the other address family; empty: it has none.")
                    port = Port()
                    token = serializers.CharField(help_text="The connect token: base64url, 120 bytes.")
                    deadline_ms = Integer(0, MAX_DEADLINE, help_text="Of a planned move, in milliseconds.")

                seat = Seat()
                token = Token()
                revoked = serializers.BooleanField()
                limits = serializers.DictField(child=Integer(0, 2**31))
                direct_mode = serializers.ChoiceField(choices=DIRECT_MODES)
                offer = GrantOfferSerializer(allow_null=True)

            session = serializers.CharField()
            revision = Count()
            worker = Count()
            token = Token()
            topology = serializers.CharField()
            dialects = serializers.ListField(child=serializers.CharField())
            idle_timeout = Integer(0, 86_400, help_text="Seconds.")
            expires_at = UnixTime(help_text="Seconds since 1970.")
            limits = RateSerializer(help_text="Per second; 0: no limit.")
            seats = GrantSeatSerializer(many=True)
            direct_grace = Integer(0, MAX_DIRECT_GRACE, help_text="Seconds (PROTOCOL.md 12.7).")
            role = serializers.ChoiceField(choices=ROLES, help_text="Of the node for the session.")
            epoch = Integer(0, 2**16 - 1, help_text="Increases with each planned move.")

        time = UnixTime(help_text="The manager's clock, seconds since 1970.")
        token_keys = TokenKeySerializer(many=True)
        sessions = GrantSerializer(many=True)

    @extend_schema(
        operation_id="nodes_grants",
        parameters=[OpenApiParameter("boot_id", description="Of the calling process, as in its heartbeats.")],
        responses={200: OutputSerializer, **error_responses(409)},
    )
    def get(self, request: Request) -> HttpResponse:
        """All sessions that the calling node has to serve (docs/node-api.md)."""
        node = calling_node(request)
        grants_check(node=node, boot_id=request.query_params.get("boot_id", ""))
        keys = [TokenKey(key.key_id, base64.b64decode(key.key)) for key in token_keys_open(node=node)]
        grants = GrantList(time=timezone.now().timestamp(), token_keys=keys, sessions=grants_of_node(node=node))
        return HttpResponse(msgspec.json.encode(grants), content_type="application/json")

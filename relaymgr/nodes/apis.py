"""HTTP for nodes: join, heartbeat (docs/node-api.md)."""

import base64
import re
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from nodeapi.grants import MAX_WORKERS
from nodeapi.membership import (
    HOST_NAME,
    MAX_BOOT_ID,
    MAX_CAPACITY,
    MAX_CONTROL_URL,
    MAX_HOST,
    MAX_KEY_IDS,
    MAX_PACKET_PATH,
    MAX_PACKET_PATH_REASON,
    MAX_VERSION,
    MAX_WEBSOCKET_URL,
    HeartbeatResponse,
    JoinResponse,
    TokenKey,
    WorkerPorts,
    is_websocket_url,
)
from nodeapi.peers import MAX_NODE_NAME
from nodeapi.strict_json import as_builtins
from relaymgr.authentication import IsNode, JoinKeyAuthentication, MayJoin, calling_node, presented_key
from relaymgr.nodes.locations.address_families import IPV4, IPV6, by_family
from relaymgr.nodes.selectors import token_keys_open
from relaymgr.nodes.services import node_heartbeat, node_join
from web.fields.address import AddressField
from web.fields.collections import BoundedList
from web.fields.numbers import Integer, Port, Seconds, Token, UnixTime
from web.http.client_address import client_address
from web.http.input_warnings import RequestSerializer
from web.openapi import error_responses

_CONTROL_URL = re.compile(r"https?://[A-Za-z0-9._~:\[\]-]+/?")


def control_url(value: str) -> str:
    """http(s)://host:port, where a plain name is fine (URLField wants a dot), and nothing else: with a path, a "?" or a
    "#" a node would choose what we ask of whom; with a user name a key could leak."""
    if not _CONTROL_URL.fullmatch(value) or not _is_address(value):
        raise serializers.ValidationError("Write http://host:port or https://host:port.", "control_url")
    return value.rstrip("/")


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port or an IPv6 literal that is none
        return False


class PlainField(serializers.CharField):
    """Printable ASCII: it is shown on pages and written to logs."""

    default_error_messages = {"not_plain": "Use printable ASCII characters only."}

    def to_internal_value(self, data: Any) -> str:
        text: str = super().to_internal_value(data)
        if not (text.isascii() and text.isprintable()):
            self.fail("not_plain")
        return text


class _WorkersField(serializers.ListField):
    class WorkerSerializer(serializers.Serializer):
        index = Integer(0, MAX_WORKERS - 1)
        server_port = Port()
        client_port = Port()

    child = WorkerSerializer()

    def __init__(self) -> None:
        super().__init__(min_length=1, max_length=MAX_WORKERS)

    def to_internal_value(self, data: Any) -> list[WorkerPorts]:
        return [WorkerPorts(**worker) for worker in super().to_internal_value(data)]


class _NodeSerializer(RequestSerializer):
    """What a node reports about itself, at join and with each heartbeat."""

    time = UnixTime(help_text="The node's clock, seconds since 1970.")
    public_ip = AddressField(help_text="Where players reach it; IPv4 where it has both.")
    public_ipv6 = AddressField(allow_null=True, default=None, help_text="Its IPv6 address, when public_ip is IPv4.")
    host = serializers.CharField(max_length=MAX_HOST, allow_blank=True, default="", help_text="A DNS name for them.")
    websocket_url = serializers.CharField(
        max_length=MAX_WEBSOCKET_URL,
        allow_blank=True,
        default="",
        help_text="The base URL of its WebSocket port, wss://host:port; empty if it has none.",
    )
    version = PlainField(max_length=MAX_VERSION, allow_blank=True, default="")
    control_url = serializers.CharField(max_length=MAX_CONTROL_URL)
    capacity = Integer(1, MAX_CAPACITY, help_text="Seats, over all workers.")
    workers = _WorkersField()

    def validate_control_url(self, value: str) -> str:
        return control_url(value)

    def validate_host(self, value: str) -> str:
        if value and not HOST_NAME.fullmatch(value):
            raise serializers.ValidationError("This is not a host name.", "host")
        return value

    def validate_websocket_url(self, value: str) -> str:
        if value and not is_websocket_url(value):
            raise serializers.ValidationError("Write wss://host or wss://host:port.", "websocket_url")
        return value

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        pair = attrs.get("public_ipv6"), attrs.get("public_ip")
        if pair[0] and (by_family(*pair).keys() != {IPV4, IPV6} or by_family(pair[0]).keys() != {IPV6}):
            text = "This stands beside an IPv4 address in public_ip, and is an IPv6 address."
            raise serializers.ValidationError({"public_ipv6": [text]}, "family")
        return attrs


class NodeJoinApi(APIView):
    authentication_classes = (JoinKeyAuthentication,)
    permission_classes = (MayJoin,)

    class InputSerializer(_NodeSerializer):
        name = serializers.SlugField(max_length=MAX_NODE_NAME)

    class OutputSerializer(serializers.Serializer):
        class TokenKeySerializer(serializers.Serializer):
            id = Token()
            key = serializers.CharField(help_text="Base64, 32 bytes.")

        node = serializers.CharField()
        location = serializers.CharField()
        node_key = serializers.CharField()
        control_key = serializers.CharField()
        token_keys = TokenKeySerializer(many=True)
        heartbeat_interval = Seconds(help_text="Seconds.")
        time = UnixTime(help_text="The manager's clock, seconds since 1970.")

    @extend_schema(
        operation_id="nodes_join",
        request=InputSerializer,
        responses={200: OutputSerializer, **error_responses(400, 409, 413, 415)},
    )
    def post(self, request: Request) -> Response:
        """Joins a node, with a join key."""
        serializer = self.InputSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        joined = node_join(join_key=presented_key(request) or "", **serializer.validated_data)
        answer = JoinResponse(
            node=joined.node.name,
            location=joined.node.location.slug,
            node_key=joined.node_key,
            control_key=joined.node.control_key,
            token_keys=[TokenKey(joined.token_key.key_id, base64.b64decode(joined.token_key.key))],
            heartbeat_interval=settings.NODE_HEARTBEAT_INTERVAL,
            time=timezone.now().timestamp(),
        )
        return Response(as_builtins(answer))


class NodeHeartbeatApi(APIView):
    permission_classes = (IsNode,)

    class InputSerializer(_NodeSerializer):
        public_ip = AddressField(
            required=False,
            help_text="As at join. Without it, the addresses, the host and the WebSocket URL stay as they are.",
        )
        boot_id = PlainField(max_length=MAX_BOOT_ID)
        key_ids = BoundedList(child=Token(), max_length=MAX_KEY_IDS, default=list)
        draining = serializers.BooleanField(default=False)
        packet_path = PlainField(max_length=MAX_PACKET_PATH, allow_blank=True, default="")
        packet_path_reason = PlainField(max_length=MAX_PACKET_PATH_REASON, allow_blank=True, default="")

    class OutputSerializer(serializers.Serializer):
        time = UnixTime(help_text="The manager's clock, seconds since 1970.")
        heartbeat_interval = Seconds(help_text="Seconds.")
        key_ids = serializers.ListField(child=Token(), help_text="The token keys it must hold.")
        draining = serializers.BooleanField(help_text="Whether an operator wants it to drain.")

    @extend_schema(
        operation_id="nodes_heartbeat",
        request=InputSerializer,
        responses={200: OutputSerializer, **error_responses(400, 409, 413, 415)},
    )
    def post(self, request: Request) -> Response:
        """Renews a node's membership and stores what it reports about itself."""
        serializer = self.InputSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        address = client_address(request._request)
        node = node_heartbeat(node=calling_node(request), address=address, **serializer.validated_data)
        answer = HeartbeatResponse(
            time=timezone.now().timestamp(),
            heartbeat_interval=settings.NODE_HEARTBEAT_INTERVAL,
            key_ids=sorted(token_keys_open(node=node).values_list("key_id", flat=True)),
            draining=node.is_draining,
        )
        return Response(as_builtins(answer))

"""HTTP: Edgegap's relay API, version 1 (EDGEGAP.md 3.1-3.8), with our additions; and the grants that nodes pull.

A client that knows only Edgegap's API is not affected by the additions. Paths have no trailing slash, and nothing
redirects (EDGEGAP.md R13).
"""

import base64
import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any, cast

import msgspec
from django.http import HttpResponse
from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from nodeapi.membership import GrantList, TokenKey
from relaymgr.authentication import IsNode, caller, calling_node
from relaymgr.nodes.selectors import token_keys_open
from relaymgr.nodes.services import grants_check
from relaymgr.tenants.models import Tenant
from web.authorization import Scope
from web.errors import Invalid
from web.fields.address import AddressField
from web.fields.choice import Choice
from web.fields.numbers import Count, Integer, Milliseconds, Number, Seat, Seconds, Share, Token, UnixTime
from web.fields.session_options import UNITS, option_conflicts
from web.http.input_warnings import InputWarning, RequestSerializer, warn
from web.http.paging import NEXT_HELP, CursorField, next_cursor
from web.openapi import error_responses
from web.ssrf_guard import is_private_url

from .grants import grants_of_node
from .idempotency import session_create_once
from .input_serializers import (
    METADATA_KEY,
    ConstraintsSerializer,
    FilterSerializer,
    LimitsSerializer,
    MetadataField,
    PlayerSerializer,
    UserSerializer,
    WebhookUrlField,
    limits_granted,
)
from .models import SessionState
from .placement.filters import Filter
from .placement.known_places import constraints_warn, filters_warn, location_warn, users_known
from .selectors import ORDER, session_get, session_list, session_page, session_placement, sessions_after
from .serializers import SessionSerializer, SessionUserSerializer
from .services import MAX_SEATS, seat_authorize, seat_revoke, session_create, session_delete

DIALECTS = ["edgegap", "native"]
DAY = 86_400
MAX_FILTER_VALUES = 500  # stored with each session, and again with its explanation

IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    location=OpenApiParameter.HEADER,
    description="Up to 255 characters of your choice. Sent again with the same body, it gets the same session.",
)
METADATA = OpenApiParameter(
    "metadata.KEY", description="For any KEY: only sessions whose metadata holds this value under it, as text."
)


class SessionsApi(APIView):
    """All of a tenant's sessions."""

    class InputSerializer(RequestSerializer):
        users = serializers.ListField(
            child=UserSerializer(), min_length=1, max_length=MAX_SEATS, help_text="The first is the host."
        )
        filters = serializers.ListField(child=FilterSerializer(), max_length=50, required=False, allow_null=True)
        webhook_url = WebhookUrlField(max_length=500, required=False, allow_blank=True, allow_null=True)
        topology = Choice(choices=["host", "mesh"], default="host")
        objective = Choice(choices=["worst", "sum", "spread"], default="worst")
        choose_host = serializers.BooleanField(
            default=False, help_text="Seat 0 goes to the user who makes the best host, and the others follow in order."
        )
        constraints = ConstraintsSerializer(required=False, allow_null=True)
        dialects = serializers.ListField(child=Choice(choices=DIALECTS), min_length=1, max_length=10, required=False)
        idle_timeout = Integer(10, DAY, default=300, help_text="Seconds.")
        max_lifetime = Integer(60, DAY, default=4 * 3600, help_text="Seconds.")
        limits = LimitsSerializer(required=False)
        metadata = MetadataField(required=False, allow_null=True)

        def validate_users(self, users: list[dict[str, Any]]) -> list[dict[str, Any]]:
            names = [user["player_id"] for user in users if "player_id" in user]
            if len(set(names)) != len(names):
                raise serializers.ValidationError("Each player_id may be there once.", "duplicate_player")
            return users

        def validate_filters(self, filters: list[Filter] | None) -> list[Filter]:
            if sum(len(each.values) for each in filters or ()) > MAX_FILTER_VALUES:
                message = f"Give at most {MAX_FILTER_VALUES} values in all filters together."
                raise serializers.ValidationError(message, "max_length")
            return filters or []

        def validate_webhook_url(self, url: str | None) -> str | None:
            if url and not self.context["private_webhooks"] and is_private_url(url):
                text = "The host is a private address, to which webhooks of this tenant do not go."
                raise serializers.ValidationError(text, "webhook_private")
            return url

        def validate_dialects(self, dialects: list[str]) -> list[str]:
            if "edgegap" in dialects and not self.context["edgegap_enabled"]:
                raise serializers.ValidationError("The edgegap dialect is switched off.", "edgegap_disabled")
            return [name for name in DIALECTS if name in dialects]

        def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
            enabled = DIALECTS if self.context["edgegap_enabled"] else ["native"]
            return {
                **attrs,
                "filters": attrs.get("filters") or [],
                "constraints": attrs.get("constraints") or {},
                "webhook_url": attrs.get("webhook_url") or "",
                "metadata": attrs.get("metadata") or {},
                "dialects": attrs.get("dialects", enabled),
                "limits": limits_granted(attrs.get("limits", {})),
            }

    class QuerySerializer(RequestSerializer):
        query_prefixes = ("metadata.",)

        state = Choice(choices=SessionState.choices, required=False, help_text="Live sessions only when left out.")
        location = serializers.SlugField(required=False, help_text="The slug of a location.")
        page = Integer(1, 1_000_000, required=False, help_text="Or a cursor, which skips nothing. Default: 1.")
        cursor = CursorField()
        limit = Integer(1, 200, default=50)

        def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
            if "page" in attrs and "cursor" in attrs:
                raise serializers.ValidationError({"cursor": ["Give a page or a cursor, not both."]}, "page_and_cursor")
            return attrs

    class OutputSerializer(serializers.Serializer):
        class PaginationSerializer(serializers.Serializer):
            class PaginatorSerializer(serializers.Serializer):
                num_pages = Count()

            number = Count()
            next_page_number = Count(allow_null=True)
            previous_page_number = Count(allow_null=True)
            paginator = PaginatorSerializer()
            has_next = serializers.BooleanField()
            has_previous = serializers.BooleanField()

        sessions = SessionSerializer(many=True)
        total_count = Count()
        pagination = PaginationSerializer(allow_null=True, help_text="Null where a cursor was given.")
        next_cursor = serializers.CharField(allow_null=True, help_text=NEXT_HELP)

    @extend_schema(
        operation_id="relay_session_create",
        request=InputSerializer,
        parameters=[IDEMPOTENCY_KEY],
        responses={200: SessionSerializer, **error_responses(400, 409, 413, 415, 422)},
    )
    def post(self, request: Request) -> Response:
        """Place a session on the relay that serves its players best. It is ready when this answers."""
        tenant = _tenant(request)
        wanted = _session_input(tenant.edgegap_enabled, tenant.private_webhooks).run_validation(request.data)
        wanted["users"] = users_known(wanted["users"], "users[{index}].")
        constraints_warn(wanted["constraints"])
        filters_warn(wanted["filters"])
        warn(_option_warnings(cast(Mapping[str, Any], request.data), wanted))
        key = _idempotency_key(request)
        if key:
            session = session_create_once(tenant=tenant, key=key, body=request.data, **wanted)
        else:
            session = session_create(tenant=tenant, **wanted)
        return Response(_session_output().to_representation(session))

    @extend_schema(
        operation_id="relay_session_list",
        parameters=[QuerySerializer, METADATA],
        responses={200: OutputSerializer, **error_responses(400)},
    )
    def get(self, request: Request) -> Response:
        """The tenant's live sessions, newest first."""
        serializer = self.QuerySerializer(data=request.query_params)
        serializer.is_valid(raise_exception=True)
        query = serializer.validated_data
        page, cursor, limit = query.pop("page", 1), query.pop("cursor", None), query.pop("limit")
        if "location" in query:
            location_warn(query["location"])
        sessions = session_list(tenant=_tenant(request), metadata=_metadata_query(request), **query)
        total = sessions.count()
        pagination: dict[str, Any] | None = None
        if cursor is not None:
            found, following = sessions_after(sessions, cursor=cursor, limit=limit)
        else:
            found = session_page(sessions, page=page, limit=limit)
            pagination = _pagination(page, pages=max(1, math.ceil(total / limit)))
            following = next_cursor(ORDER, found[-1] if found and pagination["has_next"] else None)
        answer = {"sessions": found, "total_count": total, "next_cursor": following, "pagination": pagination}
        return Response(self.OutputSerializer(answer, context=_shown(request)).data)


# Made once for all creations: to make a serializer costs more than to use it, and neither keeps anything of a use.


@functools.cache
def _session_input(edgegap_enabled: bool, private_webhooks: bool) -> SessionsApi.InputSerializer:
    context = {"edgegap_enabled": edgegap_enabled, "private_webhooks": private_webhooks}
    return SessionsApi.InputSerializer(context=context)


@functools.cache
def _session_output() -> SessionSerializer:
    return SessionSerializer()


class SessionApi(APIView):
    @extend_schema(operation_id="relay_session_get", responses={200: SessionSerializer, **error_responses(404)})
    def get(self, request: Request, session_id: str) -> Response:
        session = session_get(tenant=_tenant(request), session_id=session_id)
        return Response(SessionSerializer(session, context=_shown(request)).data)

    @extend_schema(operation_id="relay_session_delete", responses={204: None, **error_responses(404)})
    def delete(self, request: Request, session_id: str) -> Response:
        """End the session. When this answers, nothing of it is forwarded any more."""
        session_delete(tenant=_tenant(request), session_id=session_id)
        return Response(status=204)


class SessionPlacementApi(APIView):
    class OutputSerializer(serializers.Serializer):
        class FilterSerializer(serializers.Serializer):
            field = serializers.CharField()
            values = serializers.ListField(child=serializers.CharField())
            filter_type = serializers.CharField()

        class ConsideredNodeSerializer(serializers.Serializer):
            class TermSerializer(serializers.Serializer):
                name = serializers.CharField()
                ms = Number(-1e9, 1e9, allow_null=True, help_text="Null: without bound.")
                reason = serializers.CharField()

            class EstimateSerializer(serializers.Serializer):
                seat = Seat()
                ms = Milliseconds(help_text="There and back.")
                uncertainty_ms = Milliseconds()
                source = serializers.CharField(  # type: ignore[assignment]
                    help_text="measured, history, coordinates, distance or unknown."
                )
                age_s = Seconds(allow_null=True, help_text="Of a measurement.")
                jitter_ms = Milliseconds()
                loss = Share(help_text="0 to 1.")

            class TieBreakerSerializer(serializers.Serializer):
                name = serializers.CharField()
                ms = Number(-1e9, 1e9)

            node = serializers.CharField()
            location = serializers.CharField()
            state = serializers.CharField()
            load = Number(0, 1e9)
            load_age_s = Seconds(allow_null=True)
            free_seats = Count()
            price = Number(-1e12, 1e12)
            address_families = serializers.ListField(child=serializers.CharField(), help_text="ipv4, ipv6.")
            cost = Number(-1e9, 1e9, allow_null=True, help_text="The sum of the terms; null: excluded.")
            terms = TermSerializer(many=True)
            tie_breakers = TieBreakerSerializer(many=True, help_text="Compared when costs are nearly equal.")
            excluded_by = serializers.ListField(child=serializers.CharField())
            fallback_reasons = serializers.ListField(
                child=serializers.CharField(), help_text="Why the node is used only when no better one is left."
            )
            estimates = EstimateSerializer(many=True)

        class UnlistedSerializer(serializers.Serializer):
            usable = Count()
            excluded = Count()

        class ExcludedSerializer(serializers.Serializer):
            reason = serializers.CharField()
            count = Count()
            nodes = serializers.ListField(child=serializers.CharField(), help_text="At most 20 of them.")

        class AlternativeSerializer(serializers.Serializer):
            node = serializers.CharField()
            condition = serializers.CharField()

        class AttemptSerializer(serializers.Serializer):
            node = serializers.CharField()
            worker = Count()
            outcome = serializers.CharField(help_text="confirmed, no_answer, or refused and the node's code.")
            ms = Milliseconds(help_text="How long the node took.")

        topology = serializers.CharField()
        objective = serializers.CharField()
        filters = FilterSerializer(many=True)
        constraints = ConstraintsSerializer(help_text="Of the request and the operator together.")
        players = Count()
        address_families = serializers.ListField(
            child=serializers.CharField(), help_text="Those that at least one player needs: ipv4, ipv6."
        )
        policy = serializers.DictField(child=Number(-1e9, 1e9), help_text="Weights and caps.")
        considered_nodes = ConsideredNodeSerializer(
            many=True, help_text="The best 20 usable nodes, then up to 20 excluded ones."
        )
        unlisted_nodes = UnlistedSerializer(help_text="Counts of the nodes that are not listed.")
        excluded = ExcludedSerializer(many=True)
        fallback_tier = serializers.CharField(
            allow_null=True,
            help_text="Tier of the best node: none, stale_telemetry, over_limit or suspect. Null: no usable node.",
        )
        decided_by = serializers.CharField(help_text="The rule that put the first before the second.")
        alternatives = AlternativeSerializer(many=True, help_text="What would have put another node first.")
        attempts = AttemptSerializer(many=True)
        chosen = serializers.CharField(allow_null=True)

    @extend_schema(operation_id="relay_session_placement", responses={200: OutputSerializer, **error_responses(404)})
    def get(self, request: Request, session_id: str) -> Response:
        """Why the session is served where it is: each considered node with its estimates and the terms of its cost."""
        found = session_placement(tenant=_tenant(request), session_id=session_id)
        return Response(self.OutputSerializer(found).data)


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
        """Add a player to a ready session. A player_id that is there already gets its seat again."""
        serializer = self.InputSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        (user,) = users_known([serializer.validated_data], "")
        session, seat = seat_authorize(tenant=_tenant(request), session_id=user.pop("session_id"), user=user)
        return Response(SessionUserSerializer(session, context={"seat": seat}).data)


class UserRevokeApi(APIView):
    class InputSerializer(RequestSerializer):
        session_id = serializers.CharField(max_length=100)
        authorization_token = Token(help_text="The user's, as a number or as text.")

    @extend_schema(
        operation_id="relay_user_revoke",
        request=InputSerializer,
        responses={200: SessionSerializer, 204: None, **error_responses(400, 404, 413, 415)},
    )
    def post(self, request: Request) -> Response:
        """Put a player out. When this answers, none of its packets are forwarded. 204: the last one is gone."""
        serializer = self.InputSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        found = serializer.validated_data
        token = found["authorization_token"]
        session = seat_revoke(tenant=_tenant(request), session_id=found["session_id"], token=token)
        return Response(SessionSerializer(session).data) if session.active_seats else Response(status=204)


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
                seat = Seat()
                token = Token()
                revoked = serializers.BooleanField()
                limits = serializers.DictField(child=Integer(0, 2**31))

            session = serializers.CharField()
            revision = Count()
            worker = Count()
            token = Token()
            topology = serializers.CharField()
            dialects = serializers.ListField(child=serializers.CharField())
            idle_timeout = Integer(0, DAY, help_text="Seconds.")
            expires_at = UnixTime(help_text="Seconds since 1970.")
            limits = RateSerializer(help_text="A second's worth; 0: no limit.")
            seats = GrantSeatSerializer(many=True)

        time = UnixTime(help_text="The manager's clock, seconds since 1970.")
        token_keys = TokenKeySerializer(many=True)
        sessions = GrantSerializer(many=True)

    @extend_schema(
        operation_id="nodes_grants",
        parameters=[OpenApiParameter("boot_id", description="Of the calling process, as in its heartbeats.")],
        responses={200: OutputSerializer, **error_responses(409)},
    )
    def get(self, request: Request) -> HttpResponse:
        """All that the calling node is to serve (docs/node-api.md)."""
        node = calling_node(request)
        grants_check(node=node, boot_id=request.query_params.get("boot_id", ""))
        keys = [TokenKey(key.key_id, base64.b64decode(key.key)) for key in token_keys_open(node=node)]
        grants = GrantList(time=timezone.now().timestamp(), token_keys=keys, sessions=grants_of_node(node=node))
        return HttpResponse(msgspec.json.encode(grants), content_type="application/json")


def _tenant(request: Request) -> Tenant:
    return cast(Tenant, caller(request).tenant)  # MayUseRelays lets no key in that has none


def _option_warnings(given: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[InputWarning]:
    """Of options that the caller gave; what is left out has a default, which does not contradict it."""
    options: dict[str, Any] = {name: wanted[name] for name in ("idle_timeout", "max_lifetime") if name in given}
    limits = given.get("limits") or {}
    options["limits"] = {
        scope: {unit: wanted["limits"][scope][unit] for unit in UNITS if unit in limits.get(scope, {})}
        for scope in ("seat", "session")
    }
    for path, reason in option_conflicts(options):
        yield InputWarning(path, "no_effect", f"This {reason}.")


def _shown(request: Request) -> dict[str, bool]:
    """Players' tokens are for who may create sessions; a key that may only look must not be able to play."""
    return {"tokens": Scope.RELAY in caller(request).scopes}


def _idempotency_key(request: Request) -> str:
    key = request.headers.get("Idempotency-Key", "").strip()
    if len(key) > 255:
        raise Invalid.field("Idempotency-Key", "At most 255 characters.", "max_length")
    return key


def _metadata_query(request: Request) -> dict[str, str]:
    """`metadata.KEY=value`, any number of them."""
    wanted: dict[str, str] = {}
    for name, value in request.query_params.dict().items():
        prefix, dot, key = name.partition(".")
        if prefix == "metadata" and dot:
            if not METADATA_KEY.fullmatch(key) or "\0" in value:
                raise Invalid.field(name, "No session has such metadata.", "metadata_key")
            wanted[key] = value
    return wanted


def _pagination(page: int, *, pages: int) -> dict[str, Any]:
    """As Edgegap writes it (EDGEGAP.md 3.4)."""
    has_next, has_previous = page < pages, page > 1
    return {
        "number": page,
        "next_page_number": page + 1 if has_next else None,
        "previous_page_number": page - 1 if has_previous else None,
        "paginator": {"num_pages": pages},
        "has_next": has_next,
        "has_previous": has_previous,
    }

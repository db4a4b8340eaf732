"""Sessions: create, list, show and end them. Edgegap's API (EDGEGAP.md 3.1-3.8) with additions.

A client that knows only Edgegap's API is not affected by the additions. Paths have no trailing slash, and nothing
redirects (EDGEGAP.md R13).
"""

import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any, cast

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from nodeapi.grants import DIRECT_MODES
from relaymgr.authentication import caller, calling_tenant, may_create_sessions
from web.audit.services import action_record
from web.audit.via import Via
from web.errors import Invalid
from web.fields.choice import Choice
from web.fields.collections import BoundedList
from web.fields.numbers import Count, Integer
from web.fields.session_options import UNITS, option_conflicts
from web.http.input_warnings import InputWarning, RequestSerializer, warn
from web.http.paging import NEXT_HELP, CursorField, next_cursor
from web.http.throttling import count_more
from web.openapi import error_responses
from web.ssrf_guard import is_private_url

from ..direct_paths.changes import direct_modes_change
from ..direct_paths.modes import NEEDS_NATIVE, NEEDS_NATIVE_TEXT, strictest, wanted_beside_edgegap
from ..models import SessionState
from ..placement.filters import Filter
from ..selectors import ORDER, session_get, session_list, session_page, sessions_after
from ..serializers import SessionSerializer
from ..services import MAX_SEATS, creation_weight, session_create, session_delete
from .idempotency import session_create_once
from .input_serializers import (
    DIRECT_MODE_HELP,
    METADATA_KEY,
    ConstraintsSerializer,
    FilterSerializer,
    LimitsSerializer,
    MetadataField,
    UserSerializer,
    WebhookUrlField,
    limits_granted,
)
from .pending_nodes import PendingNodesSerializer, pending_response
from .unknown_names import constraints_warn, filters_warn, location_warn, users_known

DIALECTS = ["edgegap", "native"]
DAY = 86_400
MAX_FILTER_VALUES = 500  # they are stored with each session, and again with its placement

IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    location=OpenApiParameter.HEADER,
    description="Up to 255 characters of your choice. The same key and body get the same session again.",
)
METADATA = OpenApiParameter(
    "metadata.KEY",
    description="For any KEY: only sessions whose metadata has this value for the key, compared as text.",
)


class SessionsApi(APIView):
    """The sessions of a tenant."""

    class InputSerializer(RequestSerializer):
        users = BoundedList(
            child=UserSerializer(), min_length=1, max_length=MAX_SEATS, help_text="The first is the host."
        )
        filters = BoundedList(child=FilterSerializer(), max_length=50, required=False, allow_null=True)
        webhook_url = WebhookUrlField(max_length=500, required=False, allow_blank=True, allow_null=True)
        topology = Choice(choices=["host", "mesh"], default="host")
        objective = Choice(choices=["worst", "sum", "spread"], default="worst")
        choose_host = serializers.BooleanField(
            default=False, help_text="Seat 0 goes to the user who makes the best host; the others follow in order."
        )
        constraints = ConstraintsSerializer(required=False, allow_null=True)
        dialects = BoundedList(child=Choice(choices=DIALECTS), min_length=1, max_length=10, required=False)
        direct_mode = Choice(
            choices=DIRECT_MODES,
            required=False,
            allow_null=True,
            help_text="Whether players may exchange packets without the relay, which shows their addresses to each "
            'other. The strictest of tenant, session and user applies. ask and direct need dialects: ["native"]. '
            "Default: the tenant's.",
        )
        idle_timeout = Integer(10, DAY, default=300, help_text="Seconds.")
        max_lifetime = Integer(60, DAY, default=4 * 3600, help_text="Seconds.")
        limits = LimitsSerializer(required=False)
        metadata = MetadataField(required=False, allow_null=True)
        standby = serializers.BooleanField(
            default=True,
            help_text="Whether a second relay stands by, which players use at once if the first one fails. It needs "
            'dialects: ["native"], and a node at another location that is nearly as good; placement says why there is '
            "none.",
        )

        def validate_users(self, users: list[dict[str, Any]]) -> list[dict[str, Any]]:
            names = [user["player_id"] for user in users if "player_id" in user]
            if len(set(names)) != len(names):
                raise serializers.ValidationError("A player_id must not occur more than once.", "duplicate_player")
            return users

        def validate_filters(self, filters: list[Filter] | None) -> list[Filter]:
            if sum(len(each.values) for each in filters or ()) > MAX_FILTER_VALUES:
                message = f"Give at most {MAX_FILTER_VALUES} values in all filters together."
                raise serializers.ValidationError(message, "max_length")
            return filters or []

        def validate_webhook_url(self, url: str | None) -> str | None:
            if url and not self.context["private_webhooks"] and is_private_url(url):
                text = "The host is a private address, and webhooks of this tenant may not go to those."
                raise serializers.ValidationError(text, "webhook_private")
            return url

        def validate_dialects(self, dialects: list[str]) -> list[str]:
            if "edgegap" in dialects and not self.context["edgegap_enabled"]:
                raise serializers.ValidationError("The edgegap dialect is disabled.", "edgegap_disabled")
            return [name for name in DIALECTS if name in dialects]

        def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
            enabled = DIALECTS if self.context["edgegap_enabled"] else ["native"]
            dialects, direct_mode = attrs.get("dialects", enabled), attrs.get("direct_mode") or ""
            if "edgegap" in dialects:
                fields = wanted_beside_edgegap(direct_mode, attrs["users"])
                if problems := [(field, NEEDS_NATIVE_TEXT) for field in fields]:
                    raise Invalid.fields(problems, NEEDS_NATIVE)
            return {
                **attrs,
                "direct_mode": direct_mode,
                "filters": attrs.get("filters") or [],
                "constraints": attrs.get("constraints") or {},
                "webhook_url": attrs.get("webhook_url") or "",
                "metadata": attrs.get("metadata") or {},
                "dialects": dialects,
                "limits": limits_granted(attrs.get("limits", {})),
            }

    class QuerySerializer(RequestSerializer):
        query_prefixes = ("metadata.",)

        state = Choice(choices=SessionState.choices, required=False, help_text="Live sessions only when left out.")
        location = serializers.SlugField(required=False, help_text="The slug of a location.")
        page = Integer(1, 1_000_000, required=False, help_text="Use a cursor instead to skip no rows. Default: 1.")
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
        pagination = PaginationSerializer(allow_null=True, help_text="Null if a cursor was given.")
        next_cursor = serializers.CharField(allow_null=True, help_text=NEXT_HELP)

    @extend_schema(
        operation_id="relay_session_create",
        request=InputSerializer,
        parameters=[IDEMPOTENCY_KEY],
        responses={200: SessionSerializer, **error_responses(400, 409, 413, 415, 422)},
    )
    def post(self, request: Request) -> Response:
        """Place a session on the relay that serves its players best. The session is ready when this call returns."""
        tenant = calling_tenant(request)
        wanted = _session_input(tenant.edgegap_enabled, tenant.private_webhooks).run_validation(request.data)
        count_more(request, creation_weight(len(wanted["users"])) - 1)
        wanted["users"] = users_known(wanted["users"], "users[{index}].")
        constraints_warn(wanted["constraints"])
        filters_warn(wanted["filters"])
        warn(_option_warnings(cast(Mapping[str, Any], request.data), wanted))
        warn(_direct_mode_warnings(tenant.direct_mode, wanted))
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
        sessions = session_list(tenant=calling_tenant(request), metadata=_metadata_query(request), **query)
        total = sessions.count()
        pagination: dict[str, Any] | None = None
        if cursor is not None:
            found, following = sessions_after(sessions, cursor=cursor, limit=limit)
        else:
            found = session_page(sessions, page=page, limit=limit)
            pagination = _pagination(page, pages=max(1, math.ceil(total / limit)))
            following = next_cursor(ORDER, found[-1] if found and pagination["has_next"] else None)
        answer = {"sessions": found, "total_count": total, "next_cursor": following, "pagination": pagination}
        return Response(self.OutputSerializer(answer, context=_context(request)).data)


# Created once for all requests: creating a serializer costs more than using it, and these keep no state of a use.


@functools.cache
def _session_input(edgegap_enabled: bool, private_webhooks: bool) -> SessionsApi.InputSerializer:
    context = {"edgegap_enabled": edgegap_enabled, "private_webhooks": private_webhooks}
    return SessionsApi.InputSerializer(context=context)


@functools.cache
def _session_output() -> SessionSerializer:
    return SessionSerializer(context={"peer_keys": True})


class SessionApi(APIView):
    class InputSerializer(RequestSerializer):
        class UserModeSerializer(RequestSerializer):
            seat = Integer(0, MAX_SEATS - 1)
            direct_mode = Choice(choices=DIRECT_MODES, help_text=DIRECT_MODE_HELP)

        direct_mode = Choice(
            choices=DIRECT_MODES,
            required=False,
            allow_null=True,
            help_text="The session's mode. The strictest of tenant, session and user applies. Default: unchanged.",
        )
        users = BoundedList(
            child=UserModeSerializer(),
            max_length=MAX_SEATS,
            required=False,
            allow_null=True,
            help_text="Modes of single users. Others keep theirs, as far as the session's mode permits.",
        )

        def validate_users(self, users: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
            if len({user["seat"] for user in users or ()}) != len(users or ()):
                raise serializers.ValidationError("A seat must not occur more than once.", "duplicate_seat")
            return users or []

        def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
            if not attrs.get("direct_mode") and not attrs.get("users"):
                raise serializers.ValidationError({"direct_mode": ["Give direct_mode, users, or both."]}, "required")
            return {"direct_mode": attrs.get("direct_mode") or "", "users": attrs.get("users", [])}

    @extend_schema(operation_id="relay_session_get", responses={200: SessionSerializer, **error_responses(404)})
    def get(self, request: Request, session_id: str) -> Response:
        session = session_get(tenant=calling_tenant(request), session_id=session_id)
        context = {**_context(request), "peer_keys": True}
        return Response(SessionSerializer(session, context=context).data)

    @extend_schema(
        operation_id="relay_session_update",
        request=InputSerializer,
        responses={200: SessionSerializer, **error_responses(400, 404, 409, 413, 415)},
    )
    def patch(self, request: Request, session_id: str) -> Response:
        """Change direct modes. When this call returns, the node applies them and has notified the players."""
        serializer = self.InputSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        tenant, wanted = calling_tenant(request), serializer.validated_data
        warn(_direct_mode_warnings(tenant.direct_mode, wanted))
        seats = {user["seat"]: user["direct_mode"] for user in wanted["users"]}
        mode = wanted["direct_mode"]
        session = direct_modes_change(tenant=tenant, session_id=session_id, direct_mode=mode, seats=seats)
        detail = ", ".join([*([mode] if mode else []), *(f"seat {seat}: {each}" for seat, each in seats.items())])
        actor = caller(request).key.prefix
        action_record(via=Via.API, actor=actor, action="session.direct_mode", target=session.pk, detail=detail)
        return Response(_session_output().to_representation(session))

    @extend_schema(
        operation_id="relay_session_delete",
        responses={202: PendingNodesSerializer, 204: None, **error_responses(404)},
    )
    def delete(self, request: Request, session_id: str) -> Response:
        """End the session. When this call returns, none of its packets are forwarded any more. 202: other relays of the
        session have not confirmed yet."""
        pending = session_delete(tenant=calling_tenant(request), session_id=session_id)
        return pending_response(session_id, pending) if pending else Response(status=204)


def _option_warnings(given: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[InputWarning]:
    """Contradictions between options that the caller gave. Defaults do not contradict an option."""
    options: dict[str, Any] = {name: wanted[name] for name in ("idle_timeout", "max_lifetime") if name in given}
    limits = given.get("limits") or {}
    options["limits"] = {
        scope: {unit: wanted["limits"][scope][unit] for unit in UNITS if unit in limits.get(scope, {})}
        for scope in ("seat", "session")
    }
    for path, reason in option_conflicts(options):
        yield InputWarning(path, "no_effect", f"This {reason}.")


def _direct_mode_warnings(permitted: str, wanted: Mapping[str, Any]) -> Iterator[InputWarning]:
    """Of modes that are less strict than the tenant's, which applies then."""
    if (requested := wanted["direct_mode"]) and strictest(permitted, requested) != requested:
        text = f"The tenant permits {permitted} at most, which applies. Its operator can change that."
        yield InputWarning("direct_mode", "direct_mode_limited", text)


def _context(request: Request) -> dict[str, bool]:
    """Players' tokens are shown only to keys that may create sessions: a key that may only read must not play."""
    return {"tokens": may_create_sessions(request)}


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
    """In Edgegap's form (EDGEGAP.md 3.4)."""
    has_next, has_previous = page < pages, page > 1
    return {
        "number": page,
        "next_page_number": page + 1 if has_next else None,
        "previous_page_number": page - 1 if has_previous else None,
        "paginator": {"num_pages": pages},
        "has_next": has_next,
        "has_previous": has_previous,
    }

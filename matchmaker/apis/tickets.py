"""Tickets: Edgegap's Gen2 matchmaker API (EDGEGAP.md 5.2, 5.3) with our additions."""

from dataclasses import asdict
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from web.fields.collections import BoundedList
from web.fields.numbers import Count, Seconds, Version
from web.http.input_warnings import RequestSerializer
from web.openapi import error_responses

from ..matching.explanation import REASONS, WaitExplanation
from ..models import PassState
from ..selectors.explanations import ticket_explanation, wait_estimate
from ..selectors.tickets import ticket_get, ticket_shown
from ..services.tickets import Player, ticket_create, ticket_delete, tickets_create_together
from .access import about_profile, requester, take_tickets, tenant_of
from .players import IDEMPOTENCY_KEY, PlayApi, PlayerSerializer, validated
from .serializers import TicketSerializer, ticket_data

MAX_GROUP = 255
NOT_WAITING = WaitExplanation("", 0, 0, 0, 0, 0, 0, {}, None, {}, 0.0)


class TicketsApi(PlayApi):
    @extend_schema(
        operation_id="ticket_create",
        request=PlayerSerializer,
        parameters=[IDEMPOTENCY_KEY],
        responses={201: TicketSerializer, **error_responses(400, 409, 413, 415, 422)},
    )
    def post(self, request: Request) -> Response:
        """Search for a match."""
        player = Player(**validated(PlayerSerializer, request))
        take_tickets(request, 1)
        ticket = ticket_create(requester(request), player)
        return Response(ticket_data(ticket), status=201)


class TicketApi(PlayApi):
    @extend_schema(operation_id="ticket_get", responses={200: TicketSerializer, **error_responses(404)})
    def get(self, request: Request, ticket_id: str) -> Response:
        ticket = ticket_shown(tenant=tenant_of(request), ticket_id=ticket_id)
        about_profile(request, ticket.version.profile.name)
        return Response(ticket_data(ticket))

    @extend_schema(operation_id="ticket_delete", responses={204: None, **error_responses(404, 409)})
    def delete(self, request: Request, ticket_id: str) -> Response:
        """Withdraw the ticket. 409 `already_matched` once it has a match."""
        ticket_delete(tenant=tenant_of(request), ticket_id=ticket_id)
        return Response(status=204)


class TicketExplanationApi(PlayApi):
    class OutputSerializer(serializers.Serializer):
        class SuspensionSerializer(serializers.Serializer):
            until = serializers.DateTimeField()
            failures = Count(help_text="Consecutive failed passes.")
            error = serializers.CharField()

        status = serializers.CharField()
        reason = serializers.ChoiceField(
            ["", "suspended", "not_yet_evaluated", *REASONS],
            help_text="Why the ticket is waiting; empty when it is not searching.",
        )
        waiting_players = Count(help_text="Players in the pool, without the own group.")
        compared_players = Count(help_text="Of these, the players compared with the ticket: those who waited longest.")
        compatible_players = Count(help_text="Of those compared, the players whom no rule excludes, each taken alone.")
        missing_players = Count(help_text="Players who are missing for a full match.")
        missing_players_min = Count(help_text="Players who are missing for the smallest match.")
        blocked_by_rule = serializers.DictField(
            child=Count(), help_text="Rule: players that it excludes; several rules may exclude the same player."
        )
        next_expansion_in = Seconds(min_value=-1e9, allow_null=True, help_text="Seconds from now.")
        next_expansion_changes = serializers.DictField(help_text="Rule: the settings that the next expansion changes.")
        expires_in = Seconds(min_value=-1e9, help_text="Seconds from now.")
        estimated_wait_time = Seconds(allow_null=True, help_text="Remaining seconds, by the latest matches.")
        profile_version = Version()
        is_active_version = serializers.BooleanField(
            help_text="False: the ticket does not fit the active version and is matched only with tickets of its own."
        )
        last_pass_at = serializers.DateTimeField(allow_null=True, help_text="When the pool was last searched.")
        suspension = SuspensionSerializer(
            allow_null=True, help_text="The matching of this version failed, and is tried again later."
        )

    @extend_schema(operation_id="ticket_explanation", responses={200: OutputSerializer, **error_responses(404)})
    def get(self, request: Request, ticket_id: str) -> Response:
        """Why the ticket is still waiting. All counts are 0 for a ticket that is not searching."""
        ticket = ticket_get(tenant=tenant_of(request), ticket_id=ticket_id)
        about_profile(request, ticket.version.profile.name)
        explained = ticket_explanation(ticket)
        found = asdict(explained.found or NOT_WAITING)
        state = explained.state
        if state is not None and state.suspended_until is not None:
            found["reason"] = "suspended" if explained.found else ""
        elif explained.found and (state is None or state.passed_at is None):
            found["reason"] = "not_yet_evaluated"
        answer = {
            **found,
            "status": ticket.status,
            "estimated_wait_time": wait_estimate(ticket) if explained.found else None,
            "profile_version": ticket.version.number,
            "is_active_version": explained.is_active,
            "last_pass_at": state.passed_at if state else None,
            "suspension": _suspension(state),
        }
        return Response(self.OutputSerializer(answer).data)


def _suspension(state: PassState | None) -> dict[str, Any] | None:
    if state is None or state.suspended_until is None:
        return None
    return {"until": state.suspended_until, "failures": state.failures, "error": state.error}


class GroupTicketsApi(PlayApi):
    class InputSerializer(RequestSerializer):
        player_tickets = BoundedList(child=PlayerSerializer(), min_length=1, max_length=MAX_GROUP)

    class OutputSerializer(serializers.Serializer):
        player_tickets = TicketSerializer(many=True)

    @extend_schema(
        operation_id="group_tickets_create",
        request=InputSerializer,
        parameters=[IDEMPOTENCY_KEY],
        responses={201: OutputSerializer, **error_responses(400, 409, 413, 415, 422)},
        deprecated=True,
    )
    def post(self, request: Request) -> Response:
        """Search with a whole group at once. Returns a ticket for each player, in the order of the request."""
        players = validated(self.InputSerializer, request)["player_tickets"]
        take_tickets(request, len(players))
        tickets = tickets_create_together(requester(request), [Player(**player) for player in players])
        return Response(self.OutputSerializer({"player_tickets": tickets}).data, status=201)

"""HTTP, for players: Edgegap's Gen2 matchmaker API (EDGEGAP.md 5.1-5.6) with our additions; monitor and beacons."""

import functools
from dataclasses import asdict
from typing import Any
from uuid import UUID

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from web.fields.address import AddressField
from web.fields.measurements import measured
from web.fields.numbers import Count, Port, Seconds, Version
from web.health import HealthSerializer, health_report
from web.http.client_address import client_address
from web.http.input_warnings import RequestSerializer, unknown_names, warn
from web.openapi import error_responses

from . import selectors, services
from .access import MayPlay, PlayerThrottle, about_profile, requester, take_tickets, tenant_of
from .errors import LocationsUnknown
from .matching.explanation import REASONS, WaitExplanation
from .models import PassState
from .network_measurements import NetworkMeasurementsSerializer
from .serializers import (
    BackfillSerializer,
    GroupSerializer,
    MemberSerializer,
    TicketSerializer,
    check_size,
    ticket_data,
)
from .services import Player

MAX_GROUP = 255
MAX_PLAYING = 255
NOT_WAITING = WaitExplanation("", 0, 0, 0, 0, 0, 0, {}, None, {}, 0.0)
PLAYER_ID = r"^[A-Za-z0-9][A-Za-z0-9_.:@-]{0,63}\Z"
IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    location=OpenApiParameter.HEADER,
    description="A request that is sent again with the same key makes nothing new and answers with the first tickets.",
)


class PlayApi(APIView):
    """Base: for players' keys."""

    permission_classes = (MayPlay,)
    throttle_classes = (PlayerThrottle,)


class PlayerSerializer(NetworkMeasurementsSerializer):
    profile = serializers.CharField(max_length=64)
    attributes = serializers.DictField(required=False, allow_null=True, help_text="One for each rule of the profile.")
    player_ip = AddressField(required=False, allow_null=True, help_text="The caller's own address when left out.")
    player_id = serializers.RegexField(
        PLAYER_ID,
        required=False,
        allow_null=True,
        allow_blank=True,
        help_text="Your name for the player, which others see, and which has one active ticket. Left out: one is made.",
    )
    rejoin_key = serializers.CharField(
        max_length=100, required=False, allow_null=True, allow_blank=True, help_text="Of an earlier assignment."
    )

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        found = super().to_internal_value(data)
        found["attributes"] = found.get("attributes") or {}
        for name in ("player_ip", "player_id", "rejoin_key"):
            found[name] = found.get(name) or ""
        return found

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs["rejoin_key"] and not attrs["player_id"]:
            raise serializers.ValidationError({"player_id": ["A rejoin_key comes with its player_id."]}, "required")
        return super().validate(attrs)


class MemberInputSerializer(PlayerSerializer):
    is_ready = serializers.BooleanField(default=False)


@functools.cache
def _reader(kind: type[serializers.Serializer]) -> serializers.Serializer:
    """Made once for all requests: making a serializer costs more than using it, and it keeps nothing of a use."""
    return kind()


def _validated(kind: type[serializers.Serializer], request: Request) -> dict[str, Any]:
    wanted: dict[str, Any] = _reader(kind).run_validation(request.data)
    for player in wanted.get("player_tickets", [wanted]):
        if "player_ip" in player:
            player["player_ip"] = player["player_ip"] or client_address(request._request)
    _judge_measurements(wanted)
    if name := wanted.get("profile") or next((each["profile"] for each in wanted.get("player_tickets", ())), ""):
        about_profile(request, name)
    return wanted


def _judge_measurements(wanted: dict[str, Any]) -> None:
    """Takes out what is no measurement, and warns of it and of measured places that are not in the fleet."""
    players = wanted.get("player_tickets", [wanted])
    if not any(player.get("network_measurements") for player in players):
        return
    names = selectors.known_locations()
    for index, player in enumerate(players):
        under = f"player_tickets[{index}]." if "player_tickets" in wanted else ""
        player["network_measurements"] = found = measured(player["network_measurements"], under)
        if names.is_known:
            what, code = "node or location", "place_unknown"
            warn(unknown_names(found.get("latencies", ()), names.places, under + "latencies.{name}", what, code))
            nodes = [item["node"] for item in found.get("measurements", ())]
            warn(unknown_names(nodes, names.places, f"{under}measurements", what, code))


class TicketsApi(PlayApi):
    @extend_schema(
        operation_id="ticket_create",
        request=PlayerSerializer,
        parameters=[IDEMPOTENCY_KEY],
        responses={201: TicketSerializer, **error_responses(400, 409, 413, 415, 422)},
    )
    def post(self, request: Request) -> Response:
        """Search for a match."""
        player = Player(**_validated(PlayerSerializer, request))
        take_tickets(request, 1)
        ticket = services.ticket_create(requester(request), player)
        return Response(ticket_data(ticket), status=201)


class TicketApi(PlayApi):
    @extend_schema(operation_id="ticket_get", responses={200: TicketSerializer, **error_responses(404)})
    def get(self, request: Request, ticket_id: str) -> Response:
        ticket = selectors.ticket_shown(tenant=tenant_of(request), ticket_id=ticket_id)
        about_profile(request, ticket.version.profile.name)
        return Response(ticket_data(ticket))

    @extend_schema(operation_id="ticket_delete", responses={204: None, **error_responses(404, 409)})
    def delete(self, request: Request, ticket_id: str) -> Response:
        """Search no more. 409 `already_matched` once there is a match."""
        services.ticket_delete(tenant=tenant_of(request), ticket_id=ticket_id)
        return Response(status=204)


class TicketExplanationApi(PlayApi):
    class OutputSerializer(serializers.Serializer):
        class SuspensionSerializer(serializers.Serializer):
            until = serializers.DateTimeField()
            failures = Count(help_text="Passes that failed in a row.")
            error = serializers.CharField()

        status = serializers.CharField()
        reason = serializers.ChoiceField(
            ["", "suspended", "not_yet_evaluated", *REASONS], help_text="Why it waits; empty when it does not search."
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
            help_text="False: the ticket does not fit the active version, and only meets others of its own."
        )
        last_pass_at = serializers.DateTimeField(allow_null=True, help_text="When the pool was last searched.")
        suspension = SuspensionSerializer(
            allow_null=True, help_text="The matching of this version failed, and is tried again later."
        )

    @extend_schema(operation_id="ticket_explanation", responses={200: OutputSerializer, **error_responses(404)})
    def get(self, request: Request, ticket_id: str) -> Response:
        """Why the ticket is still waiting. All counts are 0 for a ticket that does not search."""
        ticket = selectors.ticket_get(tenant=tenant_of(request), ticket_id=ticket_id)
        about_profile(request, ticket.version.profile.name)
        explained = selectors.ticket_explanation(ticket)
        found = asdict(explained.found or NOT_WAITING)
        state = explained.state
        if state is not None and state.suspended_until is not None:
            found["reason"] = "suspended" if explained.found else ""
        elif explained.found and (state is None or state.passed_at is None):
            found["reason"] = "not_yet_evaluated"
        answer = {
            **found,
            "status": ticket.status,
            "estimated_wait_time": selectors.wait_estimate(ticket) if explained.found else None,
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
        player_tickets = serializers.ListField(child=PlayerSerializer(), min_length=1, max_length=MAX_GROUP)

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
        """A whole group searches at once. Answers with a ticket for each, in the order asked."""
        players = _validated(self.InputSerializer, request)["player_tickets"]
        take_tickets(request, len(players))
        tickets = services.tickets_create_together(requester(request), [Player(**player) for player in players])
        return Response(self.OutputSerializer({"player_tickets": tickets}).data, status=201)


class GroupsApi(PlayApi):
    @extend_schema(
        operation_id="group_create",
        request=MemberInputSerializer,
        parameters=[IDEMPOTENCY_KEY],
        responses={201: MemberSerializer, **error_responses(400, 409, 413, 415, 422)},
    )
    def post(self, request: Request) -> Response:
        """A group, and its first member. It searches once every member is ready."""
        wanted = _validated(MemberInputSerializer, request)
        is_ready = wanted.pop("is_ready")
        take_tickets(request, 1)
        member = services.group_create(requester(request), Player(**wanted), is_ready=is_ready)
        return Response(MemberSerializer(member).data, status=201)


class GroupApi(PlayApi):
    @extend_schema(operation_id="group_get", responses={200: GroupSerializer, **error_responses(404)})
    def get(self, request: Request, group_id: UUID) -> Response:
        members = selectors.group_members(tenant=tenant_of(request), group_id=group_id)
        about_profile(request, members[0].version.profile.name)
        return Response(GroupSerializer(members[0]).data)

    @extend_schema(operation_id="group_delete", responses={204: None, **error_responses(404, 409)})
    def delete(self, request: Request, group_id: UUID) -> Response:
        """Cancel it for all of its members."""
        services.group_remove(tenant=tenant_of(request), group_id=group_id)
        return Response(status=204)


class MembersApi(PlayApi):
    @extend_schema(
        operation_id="member_create",
        request=MemberInputSerializer,
        parameters=[IDEMPOTENCY_KEY],
        responses={201: MemberSerializer, **error_responses(400, 404, 409, 413, 415, 422)},
    )
    def post(self, request: Request, group_id: UUID) -> Response:
        """Join a group that does not search yet."""
        wanted = _validated(MemberInputSerializer, request)
        is_ready = wanted.pop("is_ready")
        take_tickets(request, 1)
        member = services.member_add(requester(request), Player(**wanted), group_id=group_id, is_ready=is_ready)
        return Response(MemberSerializer(member).data, status=201)


class MemberApi(PlayApi):
    class InputSerializer(RequestSerializer):
        is_ready = serializers.BooleanField()

    @extend_schema(operation_id="member_get", responses={200: MemberSerializer, **error_responses(404)})
    def get(self, request: Request, group_id: UUID, member_id: str) -> Response:
        member = selectors.member_get(tenant=tenant_of(request), group_id=group_id, member_id=member_id)
        about_profile(request, member.version.profile.name)
        return Response(MemberSerializer(member).data)

    @extend_schema(
        operation_id="member_update",
        request=InputSerializer,
        responses={200: MemberSerializer, **error_responses(400, 404, 409, 413, 415)},
    )
    def patch(self, request: Request, group_id: UUID, member_id: str) -> Response:
        is_ready = _validated(self.InputSerializer, request)["is_ready"]
        member = services.member_ready(
            tenant=tenant_of(request), group_id=group_id, member_id=member_id, is_ready=is_ready
        )
        about_profile(request, member.version.profile.name)
        return Response(MemberSerializer(member).data)

    @extend_schema(operation_id="member_delete", responses={204: None, **error_responses(404, 409)})
    def delete(self, request: Request, group_id: UUID, member_id: str) -> Response:
        """Leave. While the group searches this cancels it for everybody."""
        services.member_remove(tenant=tenant_of(request), group_id=group_id, member_id=member_id)
        return Response(status=204)


class BackfillsApi(PlayApi):
    class InputSerializer(RequestSerializer):
        profile = serializers.CharField(max_length=64)
        attributes = serializers.DictField(help_text="`assignment`, with the session as request_id, and the rules'.")
        tickets = serializers.DictField(
            child=serializers.DictField(), required=False, help_text="Who plays there: {id: {attributes, ...}}."
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
        """A match that plays takes one more group. It expires after a minute: send another while there is room, which
        takes the place of the one before. For a backend, or the host of the match with its `host_key`."""
        wanted = _validated(self.InputSerializer, request)
        backfill = services.backfill_create(requester(request), **{"tickets": {}, **wanted})
        return Response(BackfillSerializer(backfill).data, status=201)


class BackfillApi(PlayApi):
    @extend_schema(operation_id="backfill_get", responses={200: BackfillSerializer, **error_responses(404)})
    def get(self, request: Request, backfill_id: UUID) -> Response:
        backfill = selectors.backfill_get(tenant=tenant_of(request), backfill_id=backfill_id)
        about_profile(request, backfill.version.profile.name)
        return Response(BackfillSerializer(backfill).data)

    @extend_schema(operation_id="backfill_delete", responses={204: None, **error_responses(404, 409)})
    def delete(self, request: Request, backfill_id: UUID) -> Response:
        services.backfill_delete(backfill=selectors.backfill_get(tenant=tenant_of(request), backfill_id=backfill_id))
        return Response(status=204)


class BeaconNodeSerializer(serializers.Serializer):
    node = serializers.CharField(help_text="Its name, as measurements want it.")
    fqdn = serializers.CharField()
    public_ip = serializers.SerializerMethodField(help_text="Of the caller's family, where there is one.")
    ipv4 = serializers.CharField(allow_null=True, default=None)
    ipv6 = serializers.CharField(allow_null=True, default=None)
    tcp_port = Port()
    udp_port = Port()

    def get_public_ip(self, beacon: dict[str, Any]) -> str:
        own = "ipv6" if ":" in self.context["player_ip"] else "ipv4"
        return str(beacon.get(own) or beacon["host"])


class BeaconsApi(PlayApi):
    class OutputSerializer(serializers.Serializer):
        class BeaconSerializer(BeaconNodeSerializer):
            class BeaconLocationSerializer(serializers.Serializer):
                city = serializers.CharField(help_text="Unique in this answer.")
                country = serializers.CharField()
                continent = serializers.CharField()
                administrative_division = serializers.CharField(allow_blank=True)
                timezone = serializers.CharField()

            location = BeaconLocationSerializer()
            nodes = BeaconNodeSerializer(many=True, help_text="All nodes of the city, this one first.")

        count = Count()
        beacons = BeaconSerializer(many=True)

    @extend_schema(operation_id="matchmaker_beacons_list", responses={200: OutputSerializer, **error_responses()})
    def get(self, request: Request) -> Response:
        """What to measure for a ticket: for its measurements, and for the latencies attribute, which names cities.

        Each city once: the first of its nodes by name stands for them all, which `nodes` lists. Cities that share a
        name have their region or country added. 503 until the matchmaker knows them."""
        fleet, address = selectors.known_locations(), client_address(request._request)
        if not fleet.is_known:
            raise LocationsUnknown  # and not: there are none
        family = "ipv6" if ":" in address else "ipv4"
        if family not in fleet.answers:
            found = {"count": len(fleet.beacons), "beacons": fleet.beacons}
            fleet.answers[family] = self.OutputSerializer(found, context={"player_ip": address}).data
        return Response(fleet.answers[family])


class MatchmakerMonitorApi(APIView):
    """200 and HEALTHY, or 503 and UNHEALTHY: whether a matchmaker runs, and whether the manager answers it."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    @extend_schema(
        operation_id="matchmaker_monitor",
        auth=[],
        responses={**error_responses(), 200: HealthSerializer, 503: HealthSerializer},
    )
    def get(self, request: Request) -> Response:
        processes = selectors.processes_alive()
        found = {"matchmaker": bool(processes), "manager": any(process.manager_reachable for process in processes)}
        answer = HealthSerializer(health_report(found)).data
        return Response(answer, status=200 if all(found.values()) else 503)

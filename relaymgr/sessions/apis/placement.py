"""Why a session is on its node."""

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from relaymgr.authentication import calling_tenant
from web.fields.numbers import Count, Milliseconds, Number, Seat, Seconds, Share
from web.openapi import error_responses

from ..placement.explanation import Change
from ..placement.ranking import FallbackTier, Rule
from ..placement.standby import StandbyRule
from ..selectors import session_placement
from .input_serializers import ConstraintsSerializer


class SessionPlacementApi(APIView):
    class OutputSerializer(serializers.Serializer):
        class FilterSerializer(serializers.Serializer):
            field = serializers.CharField()
            values = serializers.ListField(child=serializers.CharField())
            filter_type = serializers.CharField()

        class ConsideredNodeSerializer(serializers.Serializer):
            class TermSerializer(serializers.Serializer):
                name = serializers.CharField()
                ms = Number(
                    -1e9,
                    1e9,
                    allow_null=True,
                )
                reason = serializers.CharField()

            class EstimateSerializer(serializers.Serializer):
                seat = Seat()
                ms = Milliseconds(help_text="Round trip.")
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
            change = serializers.CharField(help_text=f"{', '.join(Change)}.")
            condition = serializers.CharField(help_text="The change in words.")

        class AttemptSerializer(serializers.Serializer):
            node = serializers.CharField()
            worker = Count()
            outcome = serializers.CharField(help_text="confirmed, no_answer, or refused and the node's code.")
            ms = Milliseconds(help_text="How long the node took.")

        class StandbySerializer(serializers.Serializer):
            node = serializers.CharField(allow_null=True)
            decided_by = serializers.CharField(help_text=f"{', '.join(StandbyRule)}.")
            decision = serializers.CharField(help_text="The same as a sentence.")

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
            help_text=f"Tier of the best node: {', '.join(tier.code for tier in FallbackTier)}. Null: no usable node.",
        )
        decided_by = serializers.CharField(
            help_text=f"The rule that put the first node before the second: {', '.join(Rule)}."
        )
        decision = serializers.CharField(help_text="The same as a sentence.")
        alternatives = AlternativeSerializer(
            many=True, help_text="What would have put another of the considered nodes first."
        )
        attempts = AttemptSerializer(many=True)
        chosen = serializers.CharField(allow_null=True)
        standby = StandbySerializer(help_text="The standby relay when the session was created.")

    @extend_schema(operation_id="relay_session_placement", responses={200: OutputSerializer, **error_responses(404)})
    def get(self, request: Request, session_id: str) -> Response:
        """Why the session is served where it is: each considered node with its estimates and the terms of its cost."""
        found = session_placement(tenant=calling_tenant(request), session_id=session_id)
        return Response(self.OutputSerializer(found).data)

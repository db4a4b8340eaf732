"""On which paths the players of a session send to each other, and why."""

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from nodeapi.grants import DIRECT_MODES
from nodeapi.telemetry import PATH_REASONS, PATHS
from relaymgr.authentication import calling_tenant
from web.fields.numbers import INT64, Integer, Milliseconds, Seat, Share
from web.http.input_warnings import RequestSerializer
from web.openapi import error_responses

from ..direct_paths.selectors import MAX_HISTORY, MAX_PAIRS, session_paths
from ..selectors import session_get

FIGURES = ("path", "reason", "rtt_ms", "relay_rtt_ms", "loss", "packets", "bytes")


def _traffic(help_text: str) -> Integer:
    return Integer(0, INT64, help_text=help_text)


class PathSerializer(serializers.Serializer):
    path = serializers.ChoiceField(choices=PATHS)
    reason = serializers.ChoiceField(choices=PATH_REASONS, help_text="Why the player sends on this path.")
    rtt_ms = Milliseconds(allow_null=True, help_text="Round trip from player to player. Null: not measured.")
    relay_rtt_ms = Milliseconds(allow_null=True, help_text="The same over the relay. Null: not measured.")
    loss = Share(help_text="0 to 1.")
    packets = _traffic("Sent to the peer on direct paths so far, as the player reports it.")
    bytes = _traffic("The same, in UDP payload.")


class SessionPathsApi(APIView):
    class QuerySerializer(RequestSerializer):
        seat = Seat(required=False, help_text="Only the paths from and to this seat.")

    class OutputSerializer(serializers.Serializer):
        class PairSerializer(PathSerializer):
            class SampleSerializer(PathSerializer):
                at = serializers.DateTimeField()

            seat = Seat(help_text="The player who sends.")
            peer = Seat(help_text="The player who receives.")
            explanation = serializers.CharField(help_text="The reason as a sentence, with the figures behind it.")
            since = serializers.DateTimeField(help_text="When the path became this one.")
            reported_at = serializers.DateTimeField(help_text="When the player last reported it; it does each 10 s.")
            changes = _traffic("How often the path or its reason changed.")
            history = SampleSerializer(
                many=True,
                help_text=f"At changes and each minute, the oldest first; the newest {MAX_HISTORY}.",
            )

        session_id = serializers.CharField()
        direct_mode = serializers.ChoiceField(choices=DIRECT_MODES)
        direct_packets = _traffic("What all players sent on direct paths, which the relay did not forward.")
        direct_bytes = _traffic("The same, in UDP payload.")
        paths = PairSerializer(many=True, help_text=f"Each ordered pair of seats; at most {MAX_PAIRS}.")
        has_more = serializers.BooleanField(help_text="There are more pairs: ask for the paths of one seat.")

    @extend_schema(
        operation_id="relay_session_paths",
        parameters=[QuerySerializer],
        responses={200: OutputSerializer, **error_responses(400, 404)},
    )
    def get(self, request: Request, session_id: str) -> Response:
        """On which path each player sends to each other one, and why. Players report it to their node every 10 s and at
        each change; it is kept for an hour by default. Empty for a session without direct paths."""
        serializer = self.QuerySerializer(data=request.query_params)
        serializer.is_valid(raise_exception=True)
        session = session_get(tenant=calling_tenant(request), session_id=session_id)
        found = session_paths(session_id=session.pk, seat=serializer.validated_data.get("seat"))
        answer = {
            "session_id": session.pk,
            "direct_mode": session.direct_mode,
            "direct_packets": found.direct_packets,
            "direct_bytes": found.direct_bytes,
            "paths": [
                {
                    **{name: getattr(pair.current, name) for name in FIGURES},
                    "seat": pair.current.seat,
                    "peer": pair.current.peer,
                    "explanation": pair.explanation,
                    "since": pair.current.since,
                    "reported_at": pair.current.at,
                    "changes": pair.current.changes,
                    "history": pair.history,
                }
                for pair in found.pairs
            ],
            "has_more": found.has_more,
        }
        return Response(self.OutputSerializer(answer).data)

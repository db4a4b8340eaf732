"""The response to a change that not all relays of a session have confirmed yet."""

from collections.abc import Sequence

from rest_framework import serializers
from rest_framework.response import Response


class PendingNodesSerializer(serializers.Serializer):
    session_id = serializers.CharField()
    pending_nodes = serializers.ListField(
        child=serializers.CharField(),
        help_text="Nodes that may still forward packets: the change reaches them as soon as they answer.",
    )


def pending_response(session_id: str, nodes: Sequence[str]) -> Response:
    return Response(PendingNodesSerializer({"session_id": session_id, "pending_nodes": nodes}).data, status=202)

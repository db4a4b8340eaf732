"""GET /monitor: is the manager well? In the shape Edgegap's clients read (compat spec 5.2), without a key."""

import logging
from typing import Any

from django.db import DatabaseError
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from relaymgr.celery import app
from relaymgr.nodes import selectors
from relaymgr.openapi import ErrorSerializer

logger = logging.getLogger(__name__)


class MonitorApi(APIView):
    """200 and HEALTHY, or 503 and UNHEALTHY; which of `database`, `broker` and `nodes` are which."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    class OutputSerializer(serializers.Serializer):
        status = serializers.ChoiceField(["HEALTHY", "UNHEALTHY"])
        message = serializers.CharField()
        healthy_components = serializers.ListField(child=serializers.CharField())
        unhealthy_components = serializers.ListField(child=serializers.CharField())
        nodes_ready = serializers.IntegerField(help_text="How many nodes take sessions.")

    @extend_schema(auth=[], responses={200: OutputSerializer, 429: ErrorSerializer, 503: OutputSerializer})
    def get(self, request: Request) -> Response:
        nodes_ready = _nodes_ready()
        found = {"database": nodes_ready is not None, "broker": _broker(), "nodes": bool(nodes_ready)}
        unhealthy = [name for name, is_well in found.items() if not is_well]
        answer: dict[str, Any] = {
            "status": "UNHEALTHY" if unhealthy else "HEALTHY",
            "message": f"Not well: {', '.join(unhealthy)}." if unhealthy else "All is well.",
            "healthy_components": [name for name in found if name not in unhealthy],
            "unhealthy_components": unhealthy,
            "nodes_ready": nodes_ready or 0,
        }
        return Response(self.OutputSerializer(answer).data, status=503 if unhealthy else 200)


def _broker() -> bool:
    try:
        with app.connection_for_write(connect_timeout=1) as broker:
            broker.ensure_connection(max_retries=0, timeout=1)
    except Exception as error:
        logger.warning("the broker failed: %s", type(error).__name__)
        return False
    return True


def _nodes_ready() -> int | None:
    """None: the database does not answer. Asked once: without it each question takes the pool's whole patience."""
    try:
        return selectors.nodes_ready().count()
    except DatabaseError:
        return None

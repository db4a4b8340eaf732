"""GET /monitor: the health of the manager, without a key, in the format that Edgegap's clients read (EDGEGAP.md
5.2)."""

from django.conf import settings
from django.db import DatabaseError
from django.urls import get_script_prefix, reverse
from django.utils.crypto import salted_hmac
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from relaymgr.nodes import selectors
from relaymgr.task_queue.broker_health import broker_answers
from web.database.connections import health
from web.fields.numbers import Count
from web.health import HealthSerializer, health_report
from web.openapi import ErrorSerializer


class MonitorApi(APIView):
    """200 and HEALTHY, or 503 and UNHEALTHY. `components`: whether `database` (checked by a write), `broker` and
    `nodes` work."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    class OutputSerializer(HealthSerializer):
        nodes_ready = Count(help_text="Number of nodes that accept sessions.")
        installation_id = serializers.CharField(help_text="The same for all processes of one installation.")
        name = serializers.CharField()
        version = serializers.CharField()
        host = serializers.CharField(help_text="The host name of the request.")
        host_url = serializers.CharField()
        spec_url = serializers.CharField(help_text="The URL of the OpenAPI document.")

    @extend_schema(auth=[], responses={200: OutputSerializer, 429: ErrorSerializer, 503: OutputSerializer})
    def get(self, request: Request) -> Response:
        database = health()
        nodes_ready = _nodes_ready() if database != "unavailable" else None
        found = {
            "database": database == "works" and nodes_ready is not None,
            "broker": broker_answers(),
            "nodes": bool(nodes_ready),
        }
        answer = {
            **health_report(found),
            "nodes_ready": nodes_ready or 0,
            "installation_id": installation_id(),
            "name": settings.SPECTACULAR_SETTINGS["TITLE"],
            "version": settings.SPECTACULAR_SETTINGS["VERSION"],
            "host": request.get_host(),
            "host_url": request.build_absolute_uri(get_script_prefix()),
            "spec_url": request.build_absolute_uri(reverse("openapi")),
        }
        return Response(self.OutputSerializer(answer).data, status=200 if all(found.values()) else 503)


def installation_id() -> str:
    """Identifies the installation: a digest of its secret key that discloses nothing about the key."""
    return salted_hmac("causeway.installation", "", algorithm="sha256").hexdigest()[:16]


def _nodes_ready() -> int | None:
    """None: the database does not respond."""
    try:
        return selectors.nodes_ready().count()
    except DatabaseError:
        return None

"""GET /monitor: is the manager well? In the shape Edgegap's clients read (EDGEGAP.md 5.2), without a key."""

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
    """200 and HEALTHY, or 503 and UNHEALTHY; `components` says it of `database` (by a write), `broker` and
    `nodes`."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    class OutputSerializer(HealthSerializer):
        nodes_ready = Count(help_text="How many nodes take sessions.")
        installation_id = serializers.CharField(help_text="The same for all processes of one installation.")
        name = serializers.CharField()
        version = serializers.CharField()
        host = serializers.CharField(help_text="Under which the caller reached the manager.")
        host_url = serializers.CharField()
        spec_url = serializers.CharField(help_text="Of the OpenAPI document.")

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
    """Names the installation by its secret key, and discloses nothing of it."""
    return salted_hmac("causeway.installation", "", algorithm="sha256").hexdigest()[:16]


def _nodes_ready() -> int | None:
    """None: the database does not answer."""
    try:
        return selectors.nodes_ready().count()
    except DatabaseError:
        return None

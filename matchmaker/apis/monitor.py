"""Whether the matchmaker works."""

from drf_spectacular.utils import extend_schema
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from web.health import HealthSerializer, health_report
from web.openapi import error_responses

from ..selectors.processes import processes_alive


class MatchmakerMonitorApi(APIView):
    """200 and HEALTHY, or 503 and UNHEALTHY: whether a matchmaker process runs and reaches the manager."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    @extend_schema(
        operation_id="matchmaker_monitor",
        auth=[],
        responses={**error_responses(), 200: HealthSerializer, 503: HealthSerializer},
    )
    def get(self, request: Request) -> Response:
        processes = processes_alive()
        found = {"matchmaker": bool(processes), "manager": any(process.manager_reachable for process in processes)}
        answer = HealthSerializer(health_report(found)).data
        return Response(answer, status=200 if all(found.values()) else 503)

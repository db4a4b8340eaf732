"""The beacons that a player measures for its ticket."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from web.fields.numbers import Count, Port
from web.http.client_address import client_address
from web.openapi import error_responses

from ..errors import LocationsUnknown
from ..selectors.locations import known_locations
from .players import PlayApi


class BeaconNodeSerializer(serializers.Serializer):
    node = serializers.CharField(help_text="Its name, as used in measurements.")
    fqdn = serializers.CharField()
    public_ip = serializers.SerializerMethodField(help_text="Of the caller's address family, where there is one.")
    ipv4 = serializers.CharField(allow_null=True, default=None)
    ipv6 = serializers.CharField(allow_null=True, default=None)
    tcp_port = Port()
    udp_port = Port()
    websocket_url = serializers.CharField(
        allow_null=True, default=None, help_text="Leads to the UDP port where a network blocks UDP; null: nothing does."
    )

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
            nodes = BeaconNodeSerializer(many=True, help_text="All nodes of the city, beginning with this one.")

        count = Count()
        beacons = BeaconSerializer(many=True)

    @extend_schema(operation_id="matchmaker_beacons_list", responses={200: OutputSerializer, **error_responses()})
    def get(self, request: Request) -> Response:
        """The beacons to measure, for the `measurements` of a ticket and for its latencies attribute, which names
        cities.
        Each city is listed once: the first of its nodes by name represents it, and `nodes` lists all of them. The
        region or country is added to the names of cities that are not unique. 503 until the matchmaker has read the
        list."""
        fleet, address = known_locations(), client_address(request._request)
        if not fleet.is_known:
            raise LocationsUnknown  # an empty list would mean that there are none
        family = "ipv6" if ":" in address else "ipv4"
        if family not in fleet.answers:
            found = {"count": len(fleet.beacons), "beacons": fleet.beacons}
            fleet.answers[family] = self.OutputSerializer(found, context={"player_ip": address}).data
        return Response(fleet.answers[family])

"""Which beacons a player should measure (EDGEGAP.md 6)."""

from typing import TYPE_CHECKING, Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from relaymgr.authentication import MayRead
from relaymgr.nodes.locations.address_families import IPV4, IPV6, family_of
from relaymgr.nodes.locations.apis import LocationSerializer
from relaymgr.nodes.locations.geoip import locate
from relaymgr.nodes.selectors import beacons
from relaymgr.telemetry.estimation.beacons import beacon_order
from relaymgr.telemetry.estimation.estimates import Player, Site
from relaymgr.telemetry.selectors import latency_model_current
from web.fields.address import AddressField
from web.fields.choice import Choice
from web.fields.numbers import Count, Integer, Port
from web.http.client_address import client_address
from web.http.input_warnings import RequestSerializer
from web.openapi import error_responses

if TYPE_CHECKING:
    from relaymgr.nodes.models import RelayNode

MAX_BEACONS = 2_000


class BeaconListApi(APIView):
    permission_classes = (MayRead,)

    class QuerySerializer(RequestSerializer):
        limit = Integer(
            1,
            MAX_BEACONS,
            required=False,
            help_text="At most this many: the most informative ones.",
        )
        player_ip = AddressField(required=False, help_text="Address of the player. Default: the caller.")
        address_family = Choice(
            choices=[IPV4, IPV6], required=False, help_text="Only nodes with an address of this family."
        )

    class OutputSerializer(serializers.Serializer):
        class BeaconSerializer(serializers.Serializer):
            node = serializers.CharField(source="node.name")
            host = serializers.SerializerMethodField(help_text="IP address, of the player's family where there is one.")
            ipv4 = serializers.SerializerMethodField(allow_null=True)
            ipv6 = serializers.SerializerMethodField(allow_null=True)
            fqdn = serializers.CharField(source="node.address", help_text="DNS name, or the IP address again.")
            udp_port = Port(source="client_port")
            tcp_port = Port(source="client_port")
            websocket_url = serializers.SerializerMethodField(
                allow_null=True, help_text="Leads to udp_port where a network blocks UDP; null: nothing does."
            )
            location = LocationSerializer(source="node.location")

            # Any: drf-spectacular evaluates the annotations, and the models are imported for type checks only.
            def get_host(self, worker: Any) -> str:
                return str(worker.node.addresses.get(self.context["family"], worker.node.public_ip))

            def get_ipv4(self, worker: Any) -> str | None:
                return worker.node.addresses.get(IPV4)

            def get_ipv6(self, worker: Any) -> str | None:
                return worker.node.addresses.get(IPV6)

            def get_websocket_url(self, worker: Any) -> str | None:
                url: str | None = worker.node.websocket_url_of(worker.client_port)
                return url

        count = Count()
        locations = BeaconSerializer(many=True)

    @extend_schema(
        operation_id="locations_beacons_list",
        parameters=[QuerySerializer],
        responses={200: OutputSerializer, **error_responses(400)},
    )
    def get(self, request: Request) -> Response:
        """The relay nodes that accept sessions, for a game to ping and measure its latencies."""
        serializer = self.QuerySerializer(data=request.query_params)
        serializer.is_valid(raise_exception=True)
        query = serializer.validated_data
        found = list(beacons())
        address = query.get("player_ip") or client_address(request._request)
        if wanted := query.get("address_family"):
            found = [worker for worker in found if wanted in worker.node.addresses]
        if "limit" in query:
            player = _player(address)
            sites = [_site(worker.node) for worker in found]
            found = [found[index] for index in beacon_order(player, sites, latency_model_current(), query["limit"])]
        context = {"family": wanted or family_of(address)}
        return Response(self.OutputSerializer({"count": len(found), "locations": found}, context=context).data)


def _player(address: str) -> Player:
    where = locate(address)
    return Player(latitude=where.latitude, longitude=where.longitude) if where else Player()


def _site(node: "RelayNode") -> Site:
    return Site(node.name, node.location.slug, node.location.latitude, node.location.longitude)

"""Locations of relays and of callers: what Edgegap's API has beside the sessions (EDGEGAP.md 3.8, 6)."""

import ipaddress
from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from relaymgr.authentication import MayRead
from relaymgr.nodes.locations.geoip import locate
from relaymgr.nodes.models import Location
from relaymgr.nodes.selectors import locations_with_nodes
from web.fields.address import AddressField
from web.fields.collections import BoundedList
from web.fields.numbers import Count, Latitude, Longitude
from web.http.client_address import client_address
from web.http.input_warnings import RequestSerializer
from web.openapi import error_responses

MAX_LOOKUPS = 20


class LocationSerializer(serializers.Serializer):
    city = serializers.CharField()
    country = serializers.CharField()
    continent = serializers.CharField()
    administrative_division = serializers.CharField(source="region", allow_blank=True)
    timezone = serializers.CharField()
    latitude = Latitude()
    longitude = Longitude()


class LocationListApi(APIView):
    permission_classes = (MayRead,)

    class OutputSerializer(serializers.Serializer):
        class ItemSerializer(LocationSerializer):
            slug = serializers.CharField()
            country_code = serializers.CharField()
            type = serializers.SerializerMethodField()
            tags = serializers.ListField(child=serializers.CharField())
            nodes_ready = Count(help_text="Nodes at the location that accept sessions.")

            def get_type(self, location: Location) -> str:
                return "Relay"

        locations = ItemSerializer(many=True)

    @extend_schema(operation_id="locations_list", responses={200: OutputSerializer, **error_responses()})
    def get(self, request: Request) -> Response:
        """Every location."""
        return Response(self.OutputSerializer({"locations": locations_with_nodes()}).data)


class PublicIpApi(APIView):
    permission_classes = (MayRead,)

    class OutputSerializer(serializers.Serializer):
        public_ip = serializers.IPAddressField()

    @extend_schema(operation_id="ip_get", responses={200: OutputSerializer, **error_responses()})
    def get(self, request: Request) -> Response:
        """The caller's own address."""
        return Response({"public_ip": client_address(request._request)})


class IpLookupSerializer(serializers.Serializer):
    """Without a GeoIP database nothing is known of an address but its kind: the leaves are null."""

    class PlaceSerializer(serializers.Serializer):
        class NameSerializer(serializers.Serializer):
            code = serializers.CharField(allow_null=True)
            name = serializers.CharField(allow_null=True)

        continent = NameSerializer()
        country = NameSerializer()
        latitude = Latitude(allow_null=True)
        longitude = Longitude(allow_null=True)

    type = serializers.ChoiceField(["IPv4", "IPv6"])
    ip_address = serializers.IPAddressField()
    location = PlaceSerializer()


def _lookup(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> dict[str, Any]:
    found = locate(str(address))
    place = {
        "continent": {"code": (found and found.continent_code) or None, "name": (found and found.continent) or None},
        "country": {"code": (found and found.country_code) or None, "name": (found and found.country) or None},
        "latitude": found and found.latitude,
        "longitude": found and found.longitude,
    }
    return {"type": f"IPv{address.version}", "ip_address": str(address), "location": place}


class IpLookupApi(APIView):
    permission_classes = (MayRead,)

    @extend_schema(
        operation_id="ip_lookup",
        parameters=[OpenApiParameter("ip", OpenApiTypes.STR, OpenApiParameter.PATH, description="IPv4 or IPv6.")],
        responses={200: IpLookupSerializer, **error_responses(400, 404)},
    )
    def get(self, request: Request, ip: str) -> Response:
        """Where an address is, as far as is known."""
        try:
            address = AddressField().run_validation(ip)
        except serializers.ValidationError as error:
            raise serializers.ValidationError({"ip": error.detail}) from None
        return Response(_lookup(ipaddress.ip_address(address)))


class IpsLookupApi(APIView):
    permission_classes = (MayRead,)

    class InputSerializer(RequestSerializer):
        addresses = BoundedList(child=AddressField(), min_length=1, max_length=MAX_LOOKUPS)

    class OutputSerializer(serializers.Serializer):
        addresses = IpLookupSerializer(many=True)

    @extend_schema(
        operation_id="ips_lookup",
        request=InputSerializer,
        responses={200: OutputSerializer, **error_responses(400, 413, 415)},
    )
    def post(self, request: Request) -> Response:
        """The same for several addresses, in the order asked."""
        serializer = self.InputSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        addresses = map(ipaddress.ip_address, serializer.validated_data["addresses"])
        return Response({"addresses": [_lookup(address) for address in addresses]})

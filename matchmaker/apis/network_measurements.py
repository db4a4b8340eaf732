"""What players measured of the network and permit in it, submitted with a ticket and forwarded to the manager, which
judges how far to trust it. The matchmaker cannot verify the signature of a node, and no rule of a profile uses any of
this.

The manager accepts whatever passes this form: the invalid input of one player must not fail the session of a match.
"""

from typing import Any

from rest_framework import serializers

from web.fields.choice import Choice
from web.fields.collections import BoundedDict, BoundedList
from web.fields.measurements import MAX_MEASUREMENTS, MAX_PLACE_NAME, MAX_RTT_MS, MeasurementSerializer
from web.fields.numbers import Latitude, Longitude, RoundTrip
from web.http.input_warnings import RequestSerializer

from ..matching.rules import MAX_VALUES

FIELDS = ("measurements", "latencies", "latitude", "longitude", "address_family", "direct_mode")


class TicketMeasurementSerializer(MeasurementSerializer):
    """What a player found at a relay's beacon, and the relay's signature (PROTOCOL.md 11.1)."""


class NetworkMeasurementsSerializer(RequestSerializer):
    """To inherit from. What is given ends up under `network_measurements`; null and empty are as good as absent."""

    measurements = BoundedList(
        child=TicketMeasurementSerializer(),
        required=False,
        allow_null=True,
        max_length=MAX_MEASUREMENTS,
        help_text="What the player measured, signed by relays: the relay of the match is chosen by it.",
    )
    latencies = BoundedDict(
        child=RoundTrip(max_value=MAX_RTT_MS),
        max_length=MAX_VALUES,
        max_name=MAX_PLACE_NAME,
        required=False,
        allow_null=True,
        help_text="The same unsigned: {location or node: milliseconds}. The profile's latencies rule does not see it.",
    )
    latitude = Latitude(required=False, allow_null=True)
    longitude = Longitude(required=False, allow_null=True)
    address_family = Choice(
        choices=["ipv4", "ipv6", "any"],
        required=False,
        allow_null=True,
        help_text="In which the player reaches a relay; any: in both. Default: that of its address.",
    )

    direct_mode = Choice(
        choices=["relay_only", "ask", "direct"],
        required=False,
        allow_null=True,
        help_text="Whether this player may exchange packets with others without the relay, which shows its address to "
        "them. The strictest of tenant, session and player applies. Default: as the session.",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        given = {name: attrs.pop(name, None) for name in FIELDS}
        found = {name: value for name, value in given.items() if value not in (None, {}, [])}
        if ("latitude" in found) != ("longitude" in found):
            missing = "longitude" if "latitude" in found else "latitude"
            raise serializers.ValidationError({missing: ["Coordinates come in pairs."]}, "required")
        return {**attrs, "network_measurements": found}

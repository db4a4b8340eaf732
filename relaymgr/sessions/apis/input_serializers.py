"""The inputs of requests about sessions.

Null counts as absent where a field is optional, because clients in C# send fields that they have not set.
"""

import json
import re
from typing import Any

from django.conf import settings
from rest_framework import serializers

from nodeapi.grants import DIRECT_MODES
from relaymgr.nodes.locations.address_families import ANY, IPV4, IPV6
from web.fields.address import AddressField
from web.fields.choice import Choice
from web.fields.collections import BoundedDict, BoundedList
from web.fields.measurements import MAX_MEASUREMENTS, MAX_PLACE_NAME, MAX_RTT_MS, MeasurementSerializer
from web.fields.numbers import Integer, Latitude, Longitude, RoundTrip
from web.http.input_warnings import RequestSerializer
from web.ssrf_guard import is_webhook_url

from ..placement.filters import Filter

MAX_LATENCIES = 1000
MAX_METADATA = 4096  # bytes of JSON
DIRECT_MODE_HELP = (
    "Whether this player may exchange packets with others without the relay. The strictest of tenant, session and user "
    "applies. ask and direct need a session that admits the native dialect only. Default: as the session."
)
METADATA_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")


class PlayerSerializer(RequestSerializer):
    """A user without the address, whose field has different names in Edgegap's calls."""

    player_id = serializers.CharField(
        max_length=64, required=False, allow_blank=True, allow_null=True, help_text="Your id of the player."
    )
    latencies = BoundedDict(
        child=RoundTrip(max_value=MAX_RTT_MS),
        max_length=MAX_LATENCIES,
        max_name=MAX_PLACE_NAME,
        required=False,
        allow_null=True,
        help_text="Measurements of the player: {location or node: round trip in ms}; 0 or less: not measured.",
    )
    measurements = BoundedList(
        child=MeasurementSerializer(),
        required=False,
        allow_null=True,
        max_length=MAX_MEASUREMENTS,
        help_text="Measurements signed by nodes: a round trip is at least what its node signed.",
    )
    measured_at = serializers.DateTimeField(
        required=False,
        allow_null=True,
        help_text="When the latencies, and measurements without a valid signature, were taken. Default: now.",
    )
    latitude = Latitude(required=False, allow_null=True)
    longitude = Longitude(required=False, allow_null=True)

    address_family = Choice(
        choices=[IPV4, IPV6, ANY],
        required=False,
        allow_null=True,
        help_text="The family in which the player reaches a relay; any: both. Default: that of its address.",
    )

    direct_mode = Choice(choices=DIRECT_MODES, required=False, allow_null=True, help_text=DIRECT_MODE_HELP)

    ip_field = ""  # set by subclasses

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Removes null and empty values, and puts the address under `ip`."""
        found = {name: value for name, value in attrs.items() if value not in (None, "", {}, [])}
        if ("latitude" in found) != ("longitude" in found):
            missing = "longitude" if "latitude" in found else "latitude"
            message = "Coordinates come in pairs: give both, or neither."
            raise serializers.ValidationError({missing: [message]}, "required")
        if not found.keys() & {self.ip_field, "player_id", "latencies", "measurements", "latitude"}:
            message = (
                f"Say who or where the player is: give at least one of {self.ip_field}, player_id, latencies, "
                "measurements, or latitude with longitude."
            )
            raise serializers.ValidationError({self.ip_field: [message]}, "required")
        if self.ip_field != "ip" and self.ip_field in found:
            found["ip"] = found.pop(self.ip_field)
        return found


class UserSerializer(PlayerSerializer):
    ip = AddressField(
        required=False, allow_null=True, help_text="Optional if another field identifies or locates the player."
    )
    ip_field = "ip"


class FilterSerializer(serializers.Serializer):
    """Restricts the locations that may serve the session. All filters have to pass."""

    field = Choice(
        choices=["location", "country", "continent", "region", "city", "tags"],
        help_text="location: any of the names a location has. country: its name or its two letters.",
    )
    values = BoundedList(child=serializers.CharField(max_length=100), min_length=1, max_length=100)
    filter_type = Choice(choices=["any", "all", "not"])

    def to_internal_value(self, data: Any) -> Filter:
        found = super().to_internal_value(data)
        return Filter(found["field"], tuple(found["values"]), found["filter_type"])


def _names(help_text: str) -> serializers.ListField:
    name = serializers.SlugField(max_length=MAX_PLACE_NAME)
    return BoundedList(child=name, max_length=100, required=False, help_text=help_text)


class ConstraintsSerializer(serializers.Serializer):
    """Names of nodes or slugs of locations."""

    pin = _names("Use no other nodes.")
    ban = _names("Never use.")
    prefer = _names("Use unless another node is much better.")


class MetadataField(serializers.DictField):
    """A flat object of text, numbers, booleans and nulls. Sessions can be searched by it."""

    default_error_messages = {
        "metadata_key": "Keys are up to 64 letters, digits, _ . or -, and start with a letter or _.",
        "metadata_flat": "Values are text, numbers, true, false or null.",
        "metadata_size": f"At most {MAX_METADATA} bytes of JSON.",
    }

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        value = super().to_internal_value(data)
        if not all(METADATA_KEY.fullmatch(key) for key in value):
            self.fail("metadata_key")
        if not all(item is None or isinstance(item, str | int | float) for item in value.values()):
            self.fail("metadata_flat")
        if len(json.dumps(value).encode()) > MAX_METADATA:
            self.fail("metadata_size")
        return value


class WebhookUrlField(serializers.CharField):
    """http or https. Whether the host may be called is checked at delivery, because DNS records change."""

    default_error_messages = {"webhook_url": "Write a plain http:// or https:// URL, without user name and password."}

    def to_internal_value(self, data: Any) -> str:
        value = super().to_internal_value(data)
        if value and not is_webhook_url(value):
            self.fail("webhook_url")
        return value


class RateSerializer(serializers.Serializer):
    """Per second."""

    packets = Integer(1, 2**31, required=False)
    bytes = Integer(1, 2**31, required=False)


class LimitsSerializer(serializers.Serializer):
    """What a seat and the whole session may send. Default: the operator's limits."""

    seat = RateSerializer(required=False)
    session = RateSerializer(required=False)


def limits_granted(requested: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    """Raises ValidationError for a limit above the operator's; 0 in those is no limit."""
    ceilings = {"seat": settings.SEAT_LIMITS, "session": settings.SESSION_LIMITS}
    problems = {
        scope: {
            unit: [f"The operator allows at most {maximum}."]
            for unit, maximum in ceiling.items()
            if 0 < maximum < requested.get(scope, {}).get(unit, 0)
        }
        for scope, ceiling in ceilings.items()
    }
    if any(problems.values()):
        found = {scope: units for scope, units in problems.items() if units}
        raise serializers.ValidationError({"limits": found}, "max_value")
    return {scope: {**ceiling, **requested.get(scope, {})} for scope, ceiling in ceilings.items()}

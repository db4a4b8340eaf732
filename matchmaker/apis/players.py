"""What the APIs for players share: the key, the limits, and the input that describes a player."""

import functools
from typing import Any

from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.views import APIView

from web.fields.address import AddressField
from web.fields.measurements import measured
from web.http.client_address import client_address
from web.http.input_warnings import unknown_names, warn

from ..selectors.locations import known_locations
from .access import MayPlay, PlayerThrottle, about_profile
from .network_measurements import NetworkMeasurementsSerializer

PLAYER_ID = r"^[A-Za-z0-9][A-Za-z0-9_.:@-]{0,63}\Z"
IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    location=OpenApiParameter.HEADER,
    description="A repeated request with the same key creates nothing and returns the tickets of the first one.",
)


class PlayApi(APIView):
    """Base class of the APIs for the keys of players."""

    permission_classes = (MayPlay,)
    throttle_classes = (PlayerThrottle,)


class PlayerSerializer(NetworkMeasurementsSerializer):
    profile = serializers.CharField(max_length=64)
    attributes = serializers.DictField(required=False, allow_null=True, help_text="One for each rule of the profile.")
    player_ip = AddressField(required=False, allow_null=True, help_text="Default: the address of the caller.")
    player_id = serializers.RegexField(
        PLAYER_ID,
        required=False,
        allow_null=True,
        allow_blank=True,
        help_text="Your id for the player, visible to other players, with at most one "
        "active ticket. Default: a random id.",
    )
    rejoin_key = serializers.CharField(
        max_length=100, required=False, allow_null=True, allow_blank=True, help_text="Of an earlier assignment."
    )

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        found = super().to_internal_value(data)
        found["attributes"] = found.get("attributes") or {}
        for name in ("player_ip", "player_id", "rejoin_key"):
            found[name] = found.get(name) or ""
        return found

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs["rejoin_key"] and not attrs["player_id"]:
            raise serializers.ValidationError({"player_id": ["A rejoin_key requires its player_id."]}, "required")
        return super().validate(attrs)


class MemberInputSerializer(PlayerSerializer):
    is_ready = serializers.BooleanField(default=False)


@functools.cache
def _shared_serializer(kind: type[serializers.Serializer]) -> serializers.Serializer:
    """One instance for all requests, because creating a serializer costs more than using it. It keeps no state."""
    return kind()


def validated(kind: type[serializers.Serializer], request: Request) -> dict[str, Any]:
    wanted: dict[str, Any] = _shared_serializer(kind).run_validation(request.data)
    for player in wanted.get("player_tickets", [wanted]):
        if "player_ip" in player:
            player["player_ip"] = player["player_ip"] or client_address(request._request)
    _check_measurements(wanted)
    if name := wanted.get("profile") or next((each["profile"] for each in wanted.get("player_tickets", ())), ""):
        about_profile(request, name)
    return wanted


def _check_measurements(wanted: dict[str, Any]) -> None:
    """Removes values that are not measurements, and warns about these and about unknown nodes and locations."""
    players = wanted.get("player_tickets", [wanted])
    if not any(player.get("network_measurements") for player in players):
        return
    names = known_locations()
    for index, player in enumerate(players):
        under = f"player_tickets[{index}]." if "player_tickets" in wanted else ""
        player["network_measurements"] = found = measured(player["network_measurements"], under)
        if names.is_known:
            what, code = "node or location", "place_unknown"
            warn(unknown_names(found.get("latencies", ()), names.places, under + "latencies.{name}", what, code))
            nodes = [item["node"] for item in found.get("measurements", ())]
            warn(unknown_names(nodes, names.places, f"{under}measurements", what, code))

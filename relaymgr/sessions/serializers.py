"""The session as the API and the webhooks show it: Edgegap's object (EDGEGAP.md 3.4), with additions.

Tokens and users are shown only while the session is ready (EDGEGAP.md R30), so that no player starts before or after
that. They are null with `tokens` off in the context, for a key that may only read. Peer keys
are shown with `peer_keys` on in the context only: in the responses about one session, never in lists and webhooks.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from nodeapi.grants import DIRECT_MODES, MAX_DIRECT_GRACE
from relaymgr.nodes.locations.address_families import ANY, IPV4, IPV6, addresses_for, bracketed, common_address
from web.fields.numbers import Integer, Latitude, Longitude, Milliseconds, Port, Token, UnixTime
from web.fields.numbers import Seat as SeatNumber
from web.http.root_path import root_path

from .direct_paths.peer_keys import seats_show_peer_keys
from .models import RelaySession, Seat, SessionState
from .placement.standby import StandbyRule
from .selectors import better_relay, unknown_since_of

if TYPE_CHECKING:
    from relaymgr.nodes.models import RelayWorker

STATUS = {
    SessionState.REQUESTED: "Initializing",
    SessionState.PLACED: "Initializing",
    SessionState.READY: "READY",
    SessionState.ENDED: "Ended",
    SessionState.FAILED: "Failed",
}


def shows_tokens(serializer: serializers.BaseSerializer) -> bool:
    return bool(serializer.context.get("tokens", True))


def shows_peer_keys(serializer: serializers.BaseSerializer) -> bool:
    return bool(serializer.context.get("peer_keys", False)) and shows_tokens(serializer)


def relay_ip(session: RelaySession, worker: RelayWorker | None) -> str:
    """The relay's address that all players reach, if there is one. Needs the node joined."""
    if worker is None:
        return ""
    node = worker.node
    return common_address(node.addresses, node.public_ip, [seat.needed_family for seat in session.active_seats])


def relay_of(session: RelaySession, worker: RelayWorker) -> dict[str, Any]:
    """The relay as `RelaySerializer` shows it."""
    node, ip = worker.node, relay_ip(session, worker)
    host = node.host or ip
    ports = {"server": worker.server_port, "client": worker.client_port}
    return {
        "ip": ip,
        "host": host,
        "ipv4": node.addresses.get(IPV4),
        "ipv6": node.addresses.get(IPV6),
        "ports": {
            name: {"port": port, "protocol": "UDP", "link": f"{bracketed(host)}:{port}"} for name, port in ports.items()
        },
    }


def standby_of(session: RelaySession, seat: Seat) -> dict[str, Any] | None:
    """The standby relay as `StandbySerializer` shows it to the player of the seat. None: the session has none."""
    worker = session.standby
    if worker is None or not seat.standby_token:
        return None
    return {
        **relay_of(session, worker),
        "location": worker.node.location.slug,
        "relay_ips": addresses_for(worker.node.addresses, relay_ip(session, worker), seat.needed_family),
        "connect_token": seat.standby_token,
    }


def migratable_reason(session: RelaySession) -> str | None:
    """Why a ready session cannot change its relay. None: it can, or it is not ready."""
    if not session.is_ready or session.standby_id is not None:
        return None
    return session.standby_reason or StandbyRule.NOT_CONFIRMED.value


def seats_show_relay(session: RelaySession, seats: Iterable[Seat]) -> None:
    """Sets where each of these players reaches the relay: the addresses that it tries, and the URL of the WebSocket."""
    worker, common = session.worker, relay_ip(session, session.worker)
    addresses = worker.node.addresses if worker else {}
    for seat in seats:
        seat.relay_ips = addresses_for(addresses, common, seat.needed_family)
        port = (worker.server_port if seat.number == 0 else worker.client_port) if worker else 0
        seat.websocket_url = worker.node.websocket_url_of(port) if worker and seat.connect_token else None
        seat.standby = standby_of(session, seat)


class PortSerializer(serializers.Serializer):
    port = Port()
    protocol = serializers.CharField(help_text="UDP.")
    link = serializers.CharField(help_text="host:port")


class PortsSerializer(serializers.Serializer):
    server = PortSerializer(help_text="For the host, in the edgegap dialect.")
    client = PortSerializer(help_text="For all other players.")


class RelaySerializer(serializers.Serializer):
    ip = serializers.IPAddressField(help_text="The address that all players reach, if there is one.")
    host = serializers.CharField(help_text="A DNS name of the addresses, or the ip.")
    ipv4 = serializers.IPAddressField(protocol="IPv4", allow_null=True)
    ipv6 = serializers.IPAddressField(protocol="IPv6", allow_null=True)
    ports = PortsSerializer()


class StandbySerializer(RelaySerializer):
    """The relay that the player uses if the first one fails (PROTOCOL.md 14)."""

    location = serializers.CharField(help_text="The slug of its location, which is another one.")
    relay_ips = serializers.ListField(
        child=serializers.IPAddressField(), help_text="Where this player reaches it, to be tried in this order."
    )
    connect_token = serializers.CharField(help_text="Base64url. Its seat key derives from offer_key.")


class SeatSerializer(serializers.Serializer):
    """One player: Edgegap's session user."""

    ip_address = serializers.CharField(source="ip", allow_null=True)
    latitude = serializers.SerializerMethodField(help_text="0 if unknown.")
    longitude = serializers.SerializerMethodField(help_text="0 if unknown.")
    authorization_token = serializers.SerializerMethodField(help_text="u32: the user id of the edgegap dialect.")
    address_family = serializers.SerializerMethodField(help_text="The family that the player needs: ipv4, ipv6 or any.")
    relay_ips = serializers.ListField(
        child=serializers.IPAddressField(), help_text="Where this player reaches the relay, to be tried in this order."
    )
    websocket_url = serializers.CharField(
        allow_null=True,
        help_text="Where this player reaches the relay if its network blocks UDP. Null if the relay has no WebSocket "
        "port or the native dialect is disabled.",
    )
    player_id = serializers.CharField(allow_blank=True)
    seat = SeatNumber(source="number", help_text="0: the host.")
    connected = serializers.BooleanField(
        source="is_connected",
        allow_null=True,
        help_text="Whether the player is connected, as its node reported; null while `unknown_since` is set.",
    )
    connect_token = serializers.SerializerMethodField(help_text="Base64url; null if the native dialect is disabled.")
    seat_key = serializers.SerializerMethodField(help_text="Base64url; null if the native dialect is disabled.")
    offer_key = serializers.SerializerMethodField(
        help_text="Base64url, 32 bytes: the seat keys at other relays derive from it. Null if the session admits the "
        "edgegap dialect."
    )
    standby = serializers.SerializerMethodField(help_text="The standby relay. Null: there is none.")
    direct_mode = serializers.ChoiceField(
        choices=DIRECT_MODES, help_text="The strictest of the tenant's, the session's and the requested one."
    )
    peer_keys = serializers.SerializerMethodField(
        help_text="Base64url, 32 + 16 * seat bytes: the keys for direct paths, for this player only. Null in lists and "
        "webhooks, and if direct_mode is relay_only."
    )

    def get_address_family(self, seat: Seat) -> str:
        return seat.needed_family or ANY

    # Never null, because Edgegap's C# samples read both as `double` and fail on a null.
    @extend_schema_field(Latitude())
    def get_latitude(self, seat: Seat) -> float:
        return seat.latitude or 0.0

    @extend_schema_field(Longitude())
    def get_longitude(self, seat: Seat) -> float:
        return seat.longitude or 0.0

    @extend_schema_field(Token(allow_null=True))
    def get_authorization_token(self, seat: Seat) -> int | None:
        return int(seat.token) if shows_tokens(self) else None

    def get_connect_token(self, seat: Seat) -> str | None:
        return seat.connect_token or None if shows_tokens(self) else None

    def get_seat_key(self, seat: Seat) -> str | None:
        return seat.seat_key if seat.connect_token and shows_tokens(self) else None

    def get_offer_key(self, seat: Seat) -> str | None:
        return seat.offer_key or None if shows_tokens(self) else None

    @extend_schema_field(StandbySerializer(allow_null=True))
    def get_standby(self, seat: Seat) -> dict[str, Any] | None:
        return seat.standby if shows_tokens(self) else None

    def get_peer_keys(self, seat: Seat) -> str | None:
        return seat.peer_keys if shows_peer_keys(self) else None


class BetterRelaySerializer(serializers.Serializer):
    node = serializers.CharField()
    location = serializers.CharField()
    gain_ms = Milliseconds()
    since = UnixTime(help_text="Seconds since 1970.")


class SessionHeadSerializer(serializers.Serializer):
    """The fields that both of Edgegap's representations of a session have. Needs worker, node and location joined."""

    session_id = serializers.CharField(source="id")
    authorization_token = serializers.SerializerMethodField(help_text="u32: the session id of the edgegap dialect.")
    status = serializers.SerializerMethodField(help_text="Initializing, READY, Ended or Failed.")
    ready = serializers.SerializerMethodField(help_text="The node has confirmed: players may start.")
    linked = serializers.SerializerMethodField(help_text="A node has been assigned.")
    error = serializers.SerializerMethodField()
    relay = serializers.SerializerMethodField()
    webhook_url = serializers.SerializerMethodField()
    state = serializers.ChoiceField(choices=SessionState.choices)
    topology = serializers.CharField()
    dialects = serializers.ListField(child=serializers.CharField())
    direct_mode = serializers.ChoiceField(
        choices=DIRECT_MODES,
        help_text="Whether its players may exchange packets without the relay: the stricter of the tenant's and the "
        "requested one; relay_only if the session admits the edgegap dialect.",
    )
    direct_grace = Integer(
        0,
        MAX_DIRECT_GRACE,
        help_text="Seconds for which direct paths go on while a player receives nothing from the relay.",
    )
    location = serializers.SerializerMethodField(help_text="The slug of the location that serves the session.")
    created_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField()
    metadata = serializers.JSONField()
    placement = serializers.SerializerMethodField(help_text="The URL of the explanation of the placement.")
    better_relay = serializers.SerializerMethodField(
        help_text="A node that has been better by at least 15 ms for 30 s, by the live legs. Null: none."
    )
    migratable = serializers.SerializerMethodField(
        help_text="Whether its players go on at another relay if this one fails, or is drained."
    )
    migratable_reason = serializers.SerializerMethodField(
        help_text=f"Why they do not: {', '.join(rule for rule in StandbyRule if rule != StandbyRule.CHOSEN)}. Null: "
        "they do, or the session is not ready."
    )
    unknown_since = serializers.SerializerMethodField(
        help_text="When its node last answered, if that is more than 6 s ago: nothing is known of its players since "
        "then. Null: the node answers, or there is none."
    )

    @extend_schema_field(Token(allow_null=True))
    def get_authorization_token(self, session: RelaySession) -> int | None:
        return int(session.token) if session.is_ready and shows_tokens(self) else None

    def get_status(self, session: RelaySession) -> str:
        return STATUS[SessionState(session.state)]

    def get_ready(self, session: RelaySession) -> bool:
        return session.is_ready

    def get_linked(self, session: RelaySession) -> bool:
        return session.is_linked

    def get_error(self, session: RelaySession) -> str | None:
        if session.state in (SessionState.ENDED, SessionState.FAILED):
            return f"Session {session.state}: {session.end_reason}"
        return None

    @extend_schema_field(RelaySerializer(allow_null=True))
    def get_relay(self, session: RelaySession) -> dict[str, Any] | None:
        if not session.is_linked or session.worker is None:
            return None
        return relay_of(session, session.worker)

    def get_webhook_url(self, session: RelaySession) -> str | None:
        return session.webhook_url or None

    def get_location(self, session: RelaySession) -> str | None:
        return session.worker.node.location.slug if session.is_linked and session.worker else None

    def get_placement(self, session: RelaySession) -> str:
        return f"{root_path()}/v1/relays/sessions/{session.id}/placement"

    @extend_schema_field(BetterRelaySerializer(allow_null=True))
    def get_better_relay(self, session: RelaySession) -> dict[str, Any] | None:
        return better_relay(session)

    def get_migratable(self, session: RelaySession) -> bool:
        return session.is_ready and session.standby_id is not None

    def get_migratable_reason(self, session: RelaySession) -> str | None:
        return migratable_reason(session)

    @extend_schema_field(serializers.DateTimeField(allow_null=True))
    def get_unknown_since(self, session: RelaySession) -> str | None:
        since = unknown_since_of(session, timezone.now())
        return since.isoformat() if since else None


class SessionSerializer(SessionHeadSerializer):
    """Needs `active_seats` prefetched too, see `selectors.with_details`."""

    session_users = serializers.SerializerMethodField(help_text="In the order of the request. Empty until ready.")

    @extend_schema_field(SeatSerializer(many=True))
    def get_session_users(self, session: RelaySession) -> list[dict[str, Any]]:
        if not session.is_ready:
            return []
        seats_show_relay(session, session.active_seats)
        if shows_peer_keys(self):
            seats_show_peer_keys(session, session.active_seats)
        users = [self._seat.to_representation(seat) for seat in session.active_seats]
        if unknown_since_of(session, timezone.now()):
            users = [{**user, "connected": None} for user in users]
        return users

    @functools.cached_property
    def _seat(self) -> SeatSerializer:
        """One for all sessions of a list, because creating a serializer costs more than using it."""
        return SeatSerializer(context=self.context)


class SessionUserSerializer(SessionHeadSerializer):
    """Edgegap's response to authorize-user: the session and the new user."""

    session_user = serializers.SerializerMethodField()

    @extend_schema_field(SeatSerializer)
    def get_session_user(self, session: RelaySession) -> dict[str, Any]:
        seat = self.context["seat"]
        seats_show_relay(session, [seat])
        seats_show_peer_keys(session, [seat])
        return SeatSerializer(seat, context=self.context).data

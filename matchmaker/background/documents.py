"""The two documents of a match: the request for its session, and the assignment that each of its players gets."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..matching.rules import Rules
from ..models import Match, Ticket
from ..proofs import host_key, rejoin_key

# Of all players of a match: with as many latencies this is three quarters of the largest body that the manager accepts.
MAX_MEASUREMENTS_PER_MATCH = 2_000


def session_request(
    match: Match, tickets: Sequence[Ticket], rules: Rules, slugs: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """The body of POST /v1/relays/sessions: users in the order of the seats, the host first."""
    users = [_user(ticket, rules, slugs, len(tickets)) for ticket in tickets]
    return {"users": users, **rules.session, "metadata": {"match": match.pk, "profile": match.version.profile.name}}


def _user(ticket: Ticket, rules: Rules, slugs: Mapping[str, Sequence[str]], players: int) -> dict[str, Any]:
    """With the time of the measurements, because a ticket may wait for a long time."""
    latencies = {**_latencies(ticket, rules, slugs), **ticket.network_measurements.get("latencies", {})}
    measured = {**ticket.network_measurements, "latencies": latencies} if latencies else ticket.network_measurements
    user = {"player_id": ticket.player_id, "ip": ticket.player_ip, **nearest(measured, players)}
    user = with_accepted_mode(user, rules.session.get("dialects", ()))
    return {**user, "measured_at": ticket.created_at.isoformat()} if measured else user


def with_accepted_mode(user: Mapping[str, Any], dialects: Sequence[str]) -> dict[str, Any]:
    """The user, with a stricter mode in place of one that the manager refuses where `dialects` may include edgegap: one
    player must not fail the session of a match."""
    mode = user.get("direct_mode", "relay_only")
    if mode == "relay_only" or set(dialects) == {"native"}:
        return dict(user)
    found = {name: value for name, value in user.items() if name != "direct_mode"}
    return {**found, "direct_mode": "relay_only"} if mode == "ask" else found


def _latencies(ticket: Ticket, rules: Rules, slugs: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Tickets name beacons by their city (EDGEGAP.md B1); the manager knows locations by their slug."""
    measured = ticket.attributes[rules.latencies] if rules.latencies else {}
    return {slug: ms for city, ms in measured.items() for slug in slugs.get(city, (city,))}


def nearest(network_measurements: Mapping[str, Any], players: int) -> dict[str, Any]:
    """The user of a request for a session. In a large match each player forwards its best measurements only."""
    share = MAX_MEASUREMENTS_PER_MATCH // players
    found = dict(network_measurements)
    if "measurements" in found:
        found["measurements"] = sorted(found["measurements"], key=lambda each: float(each["rtt_ms"]))[:share]
    if "latencies" in found:
        found["latencies"] = dict(sorted(found["latencies"].items(), key=lambda each: float(each[1]))[:share])
    return found


def assignment_of(
    match: Match,
    session: Mapping[str, Any],
    users: Mapping[str, Mapping[str, Any]],
    ticket: Ticket,
    location: Mapping[str, Any] | None,
    team_ids: Mapping[str, str],
) -> dict[str, Any]:
    """Edgegap's assignment (EDGEGAP.md 5.3), with the relay as the server, and the connection data of this one player.

    It contains the secrets of this player and is for this player alone; of the others it names the seats."""
    relay, mine = session["relay"], users[ticket.player_id]
    role = "server" if mine["seat"] == 0 else "client"
    address = mine["relay_ips"][0]
    name = relay["host"] if relay["host"] != relay["ip"] else address  # a DNS name, where the relay has one
    ports = {each: _port(port, name) for each, port in relay["ports"].items()}
    return {
        "fqdn": name,
        "public_ip": address,
        "relay_ips": mine["relay_ips"],
        "websocket_url": mine["websocket_url"],
        "ports": {"gameport": ports[role], **ports},
        "location": dict(location) if location else None,
        "request_id": session["session_id"],
        "match_id": match.pk,
        "placement": session.get("placement"),
        "expires_at": session.get("expires_at"),
        "seat": mine["seat"],
        "is_host": mine["seat"] == 0,
        "player_id": ticket.player_id,
        "players": [
            {"player_id": player, "seat": user["seat"], "team_id": team_ids.get(player)}
            for player, user in sorted(users.items(), key=lambda each: each[1]["seat"])
        ],
        "session_token": session["authorization_token"],
        "user_token": mine["authorization_token"],
        "connect_token": mine["connect_token"],
        "seat_key": mine["seat_key"],
        "offer_key": mine["offer_key"],
        "standby": mine["standby"],
        "direct_mode": mine["direct_mode"],
        "peer_keys": mine["peer_keys"],
        "rejoin_key": rejoin_key(session["session_id"], ticket.player_id),
        "host_key": host_key(session["session_id"]) if mine["seat"] == 0 else None,
    }


def completed(assignment: Mapping[str, Any]) -> dict[str, Any]:
    """With every field of an assignment: one that another version of the software stored may lack some."""
    texts = ("fqdn", "public_ip", "request_id", "match_id", "player_id", "rejoin_key")
    nothing = (
        "placement",
        "expires_at",
        "location",
        "websocket_url",
        "connect_token",
        "seat_key",
        "offer_key",
        "standby",
        "peer_keys",
        "host_key",
    )
    return {
        **dict.fromkeys(texts, ""),
        **dict.fromkeys(nothing),
        "seat": 0,
        "is_host": assignment.get("seat") == 0,
        "direct_mode": "relay_only",
        "players": [],
        "session_token": 0,
        "user_token": 0,
        "relay_ips": [assignment["public_ip"]] if "public_ip" in assignment else [],
        **assignment,
    }


def public_part(assignment: Mapping[str, Any]) -> dict[str, Any]:
    """Without the secrets of a player: what all members of a group may see."""
    shared = ("fqdn", "public_ip", "ports", "location", "request_id", "match_id", "placement")
    found = completed(assignment)
    return {name: found[name] for name in shared}


def _port(port: Mapping[str, Any], host: str) -> dict[str, Any]:
    number = port["port"]
    link = f"[{host}]:{number}" if ":" in host else f"{host}:{number}"
    return {"internal": number, "external": number, "link": link, "protocol": port["protocol"]}

"""The Gen2 API (EDGEGAP.md 5) and ours beside it, on a real database."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from django.test import override_settings
from django.utils import timezone
from rest_framework.test import APIClient

from matchmaker.models import Group, LocationSnapshot, PassState, ProfileVersion, Status, Ticket
from matchmaker.selectors.locations import known_locations
from matchmaker.selectors.profiles import forget_active_versions
from matchmaker.services.quotas import forget_counts
from relaymgr.tenants.models import Tenant
from relaymgr.tenants.services import api_key_create
from tests.matchmaker.conftest import CONFIG
from tests.support.manager import client_with, in_threads

pytestmark = pytest.mark.django_db
Search = Callable[..., dict[str, Any]]
BASE = "/matchmaker"


def problems(answer: Any, status: int = 400) -> dict[str, str]:
    """Path -> reason."""
    assert answer.status_code == status, answer.content
    return {path: found[0]["message"] for path, found in answer.json()["details"].items()}


# -- tickets ---------------------------------------------------------------------------------------


def test_ticket_has_the_fields_of_gen2(search: Search, players: APIClient) -> None:
    ticket = search()
    assert players.get(f"{BASE}/tickets/{ticket['id']}").json() == ticket
    assert ticket["status"] == "SEARCHING"
    assert ticket["assignment"] is ticket["group_id"] is ticket["team_id"] is ticket["match_id"] is None
    assert (ticket["profile"], ticket["player_ip"], len(ticket["id"])) == ("duel", "192.0.2.1", 20)


def test_player_ip_of_null_is_the_callers_address(search: Search) -> None:
    assert search(player_ip=None)["player_ip"] == "127.0.0.1"


BAD_ATTRIBUTES: list[tuple[Any, dict[str, str]]] = [
    ({}, {"attributes.elo": "is missing"}),
    (None, {"attributes.elo": "is missing"}),
    ({"elo": 1, "shoe": 43}, {"attributes.shoe": "is not an attribute of this profile"}),
    ({"elo": "1"}, {"attributes.elo": "must be a number from -1e+12 to 1e+12"}),
    ({"elo": True}, {"attributes.elo": "must be a number from -1e+12 to 1e+12"}),
    ({"elo": 1e13}, {"attributes.elo": "must be a number from -1e+12 to 1e+12"}),
    ({"elo": None}, {"attributes.elo": "must be a number from -1e+12 to 1e+12"}),
    ({"elo": [1]}, {"attributes.elo": "must be a number from -1e+12 to 1e+12"}),
]


@pytest.mark.parametrize(("attributes", "expected"), BAD_ATTRIBUTES)
def test_M12_bad_attributes_are_400_and_named(
    players: APIClient, profile: str, attributes: Any, expected: dict[str, str]
) -> None:
    body = {"profile": profile, "attributes": attributes}
    assert problems(players.post(f"{BASE}/tickets", body, format="json")) == expected
    assert not Ticket.objects.exists()


def test_M12_unknown_profile_is_400(players: APIClient, profile: str) -> None:
    body = {"profile": "chess", "attributes": {}}
    assert "profile" in problems(players.post(f"{BASE}/tickets", body, format="json"))


@pytest.mark.parametrize("text", ['{"profile": "duel", "attributes": {"elo": NaN}}', "[]", '"x"', "{", "null"])
def test_what_is_not_a_ticket_is_400(players: APIClient, profile: str, text: str) -> None:
    assert players.post(f"{BASE}/tickets", text, content_type="application/json").status_code == 400


def test_a_megabyte_of_attributes_is_refused(players: APIClient, profile: str) -> None:
    body = {"profile": profile, "attributes": {"elo": "x" * 1_000_000}}
    assert players.post(f"{BASE}/tickets", body, format="json").status_code == 413


GOOD = {"node": "fra-1", "rtt_ms": 20}


@pytest.mark.parametrize(
    ("network_measurements", "field", "code"),
    [
        ({"measurements": [{**GOOD, "rtt_ms": 1e6}]}, "measurements[0].rtt_ms", "max_value"),
        ({"measurements": [GOOD, {**GOOD, "rtt_ms": "NaN"}]}, "measurements[1].rtt_ms", "invalid"),
        ({"measurements": [{**GOOD, "loss": 2}]}, "measurements[0].loss", "max_value"),
        ({"measurements": [{**GOOD, "node": "a b"}]}, "measurements[0].node", "invalid"),
        ({"measurements": [{**GOOD, "proof": "A" * 101}]}, "measurements[0].proof", "max_length"),
        ({"measurements": [{"node": "fra-1"}]}, "measurements[0].rtt_ms", "required"),
        ({"measurements": [GOOD] * 201}, "measurements", "max_length"),
        ({"measurements": "many"}, "measurements", "not_a_list"),
        ({"latencies": {"fra": 1e9}}, "latencies.fra", "max_value"),
        ({"latencies": {str(n): 1 for n in range(65)}}, "latencies", "max_length"),
        ({"latencies": {"x" * 51: 1}}, "latencies", "max_length"),
        ({"latitude": 91, "longitude": 0}, "latitude", "max_value"),
        ({"latitude": 50}, "longitude", "required"),
    ],
)
def test_bad_whereabouts_are_400_and_named(
    players: APIClient, profile: str, network_measurements: dict[str, Any], field: str, code: str
) -> None:
    answer = players.post(
        f"{BASE}/tickets", {"profile": profile, "attributes": {"elo": 1}, **network_measurements}, format="json"
    )
    assert answer.status_code == 400
    assert {path: found[0]["code"] for path, found in answer.json()["details"].items()} == {field: code}
    assert not Ticket.objects.exists()


def test_whereabouts_of_null_are_none(search: Search) -> None:
    search(measurements=None, latencies=None, latitude=None, longitude=None)
    search(measurements=[], latencies={})
    assert [ticket.network_measurements for ticket in Ticket.objects.all()] == [{}, {}]


def test_members_of_groups_bring_their_whereabouts(players: APIClient, profile: str) -> None:
    body = {"profile": "duel", "attributes": {"elo": 1}, "measurements": [GOOD]}
    answer = players.post(f"{BASE}/group-tickets", {"player_tickets": [body, body]}, format="json")
    assert answer.status_code == 201, answer.content
    group = players.post(f"{BASE}/groups", body, format="json").json()["group_id"]
    assert players.post(f"{BASE}/groups/{group}/members", body, format="json").status_code == 201
    brought = [ticket.network_measurements["measurements"][0]["node"] for ticket in Ticket.objects.all()]
    assert brought == ["fra-1"] * 4


def test_beacons_have_the_names_that_measurements_want(players: APIClient) -> None:
    place = {"city": "Frankfurt", "country": "D", "continent": "E", "administrative_division": "", "timezone": ""}
    beacon = {"node": "fra-1", "host": "203.0.113.9", "fqdn": "f.example.com", "udp_port": 1, "tcp_port": 1}
    LocationSnapshot.objects.create(beacons=[{**beacon, "location": place}], fetched_at=timezone.now())
    [shown] = players.get(f"{BASE}/locations/beacons").json()["beacons"]
    assert (shown["node"], shown["public_ip"]) == ("fra-1", "203.0.113.9")


def test_beacons_are_not_said_to_be_none_before_they_are_known(players: APIClient, profile: str) -> None:
    """A game that is told "none" searches without measurements."""
    answer = players.get(f"{BASE}/locations/beacons")
    assert (answer.status_code, answer.json()["code"], answer["Retry-After"]) == (503, "locations_unknown", "2")
    ticket = players.post(
        f"{BASE}/tickets",
        {"profile": profile, "attributes": {"elo": 1}, "latencies": {"frankfurt": 5}},
        format="json",
    )
    assert "warnings" not in ticket.json()
    with override_settings(LOOKUP_CACHE_SECONDS=600):
        assert players.get(f"{BASE}/locations/beacons").status_code == 503
        LocationSnapshot.objects.create(fetched_at=timezone.now())
        assert players.get(f"{BASE}/locations/beacons").json() == {"count": 0, "beacons": []}


def test_a_city_is_one_beacon_and_cities_of_one_name_have_different_ones(players: APIClient) -> None:
    """Edgegap's SDK fills a dictionary by city, and waits for as many entries as `count` says."""
    where = {"continent": "E", "timezone": "", "country": "USA"}
    places = [
        ("ill-1", "illinois-1", "Springfield", "Illinois"),
        ("ill-2", "illinois-2", "Springfield", "Illinois"),
        ("mas-1", "massachusetts", "Springfield", "Massachusetts"),
        ("nyc-1", "new-york", "New York", ""),
    ]
    rows = [
        (node, slug, {**where, "city": city, "administrative_division": region}) for node, slug, city, region in places
    ]
    LocationSnapshot.objects.create(
        beacons=[
            {"node": node, "host": "203.0.113.9", "fqdn": "", "udp_port": 1, "tcp_port": 1, "location": place}
            for node, slug, place in rows
        ],
        locations=[{**place, "slug": slug} for node, slug, place in rows],
        fetched_at=timezone.now(),
    )
    answer = players.get(f"{BASE}/locations/beacons").json()
    by_city = {beacon["location"]["city"]: beacon for beacon in answer["beacons"]}
    assert answer["count"] == len(answer["beacons"]) == len(by_city) == 3
    assert {city: [node["node"] for node in beacon["nodes"]] for city, beacon in by_city.items()} == {
        "Springfield, Illinois": ["ill-1", "ill-2"],
        "Springfield, Massachusetts": ["mas-1"],
        "New York": ["nyc-1"],
    }
    assert by_city["Springfield, Illinois"]["node"] == "ill-1"
    slugs = known_locations().slugs_by_city
    assert slugs["Springfield, Illinois"] == ["illinois-1", "illinois-2"]


def test_beacons_have_the_address_of_the_callers_family_first(players: APIClient) -> None:
    place = dict.fromkeys(("city", "country", "continent", "administrative_division", "timezone"), "")
    beacon = {"node": "fra-1", "host": "203.0.113.9", "fqdn": "f.example.com", "udp_port": 1, "tcp_port": 1}
    both = {"ipv4": "203.0.113.9", "ipv6": "2001:db8::9"}
    LocationSnapshot.objects.create(beacons=[{**beacon, **both, "location": place}], fetched_at=timezone.now())
    for caller, address in {"198.51.100.1": "203.0.113.9", "2001:db8:1::1": "2001:db8::9"}.items():
        [shown] = players.get(f"{BASE}/locations/beacons", REMOTE_ADDR=caller).json()["beacons"]
        assert (shown["public_ip"], shown["ipv4"], shown["ipv6"]) == (address, *both.values())


@pytest.mark.parametrize("number", ["1" + "0" * 400, "-1" + "0" * 400, "1e400", "9" * 5000])
@pytest.mark.parametrize("path", ["tickets", "profiles:validate", "profiles:import", "groups"])
def test_numbers_beyond_all_bounds_are_400(api: APIClient, profile: str, path: str, number: str) -> None:
    rule = '{"type": "number_difference", "attributes": {"max_difference": NUMBER}}'
    bodies = {
        "tickets": '{"profile": "duel", "attributes": {"elo": NUMBER}, "latitude": NUMBER}',
        "groups": '{"profile": "duel", "attributes": {"elo": NUMBER}}',
        "profiles:validate": '{"config": {"max_deployment_retry_count": NUMBER, "rules": {"initial": {"a": RULE}}}}',
        "profiles:import": '{"config": {"profiles": {"a": {"rules": {"initial": {"a": RULE}}}}}}',
    }
    text = bodies[path].replace("RULE", rule).replace("NUMBER", number)
    answer = api.post(f"{BASE}/{path}", text, content_type="application/json")
    assert answer.status_code == 400 or answer.json()["valid"] is False


def test_deleted_ticket_is_gone(search: Search, players: APIClient) -> None:
    path = f"{BASE}/tickets/{search()['id']}"
    assert players.delete(path).status_code == 204
    assert players.get(path).status_code == players.delete(path).status_code == 404


@pytest.mark.parametrize("status", [Status.MATCH_FOUND, Status.HOST_ASSIGNED])
def test_deletion_after_match_is_409(search: Search, players: APIClient, status: str) -> None:
    ticket = search()
    Ticket.objects.filter(pk=ticket["id"]).update(status=status)
    answer = players.delete(f"{BASE}/tickets/{ticket['id']}")
    assert (answer.status_code, answer.json()["code"]) == (409, "already_matched")
    assert Ticket.objects.get().status == status


def test_tickets_of_another_tenant_are_404(search: Search) -> None:
    other = Tenant.objects.create(name="Other", slug="other")
    stranger = client_with(api_key_create(tenant=other, name="x", scopes=["matchmaker"])[1])
    path = f"{BASE}/tickets/{search()['id']}"
    for answer in (
        stranger.get(path),
        stranger.delete(path),
        stranger.get(f"{path}/explanation"),
        stranger.get(f"{path}/events"),
    ):
        assert answer.status_code == 404


def test_why_tells_which_rule_blocks_whom(search: Search, players: APIClient) -> None:
    ticket = search(1000)
    search(1020)
    search(5000)
    explained = players.get(f"{BASE}/tickets/{ticket['id']}/explanation").json()
    assert (
        explained["waiting_players"],
        explained["compatible_players"],
        explained["missing_players"],
        explained["blocked_by_rule"],
    ) == (2, 1, 3, {"elo": 1})
    assert explained["next_expansion_changes"] == {"elo": {"max_difference": 500}}
    assert 29 < explained["next_expansion_in"] <= 30
    assert 59 < explained["expires_in"] <= 60
    assert explained["estimated_wait_time"] is None


def test_why_names_the_reason(search: Search, players: APIClient) -> None:
    ticket = search(1000)
    path = f"{BASE}/tickets/{ticket['id']}/explanation"
    assert players.get(path).json()["reason"] == "not_yet_evaluated"
    PassState.objects.create(version=ProfileVersion.objects.get(), passed_at=timezone.now())
    assert players.get(path).json()["reason"] == "no_other_players"
    search(5000)
    assert players.get(path).json()["reason"] == "excluded_by_rules"
    search(1010)
    assert players.get(path).json()["reason"] == "waiting_for_full_match"
    Ticket.objects.update(status=Status.CANCELLED)
    assert players.get(path).json()["reason"] == ""


# -- one request, one player, one ticket -----------------------------------------------------------


def body(**more: Any) -> dict[str, Any]:
    return {"profile": "duel", "attributes": {"elo": 1}, **more}


def test_request_sent_again_with_its_key_makes_nothing_new(players: APIClient, profile: str) -> None:
    headers = {"HTTP_IDEMPOTENCY_KEY": "abc"}
    first, second = (players.post(f"{BASE}/tickets", body(), format="json", **headers) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    other = players.post(f"{BASE}/tickets", body(attributes={"elo": 2}), format="json", **headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    assert players.post(f"{BASE}/tickets", body(), format="json").json()["id"] != first.json()["id"]
    long = players.post(f"{BASE}/tickets", body(), format="json", HTTP_IDEMPOTENCY_KEY="x" * 256)
    assert "Idempotency-Key" in problems(long)
    assert Ticket.objects.count() == 2


@pytest.mark.parametrize("path", ["group-tickets", "groups", "members"])
def test_groups_are_made_once_for_a_key(players: APIClient, profile: str, path: str) -> None:
    made = players.post(f"{BASE}/groups", member(), format="json").json()
    path = f"groups/{made['group_id']}/members" if path == "members" else path
    asked = {"player_tickets": [body(), body()]} if path == "group-tickets" else member()
    answers = [players.post(f"{BASE}/{path}", asked, format="json", HTTP_IDEMPOTENCY_KEY="k").json() for _ in range(2)]
    assert answers[0] == answers[1]
    assert Ticket.objects.count() == (3 if path == "group-tickets" else 2)


def test_key_answers_with_the_ticket_as_it_is_now(players: APIClient, profile: str) -> None:
    first = players.post(f"{BASE}/tickets", body(), format="json", HTTP_IDEMPOTENCY_KEY="k").json()
    Ticket.objects.update(status=Status.CANCELLED, reason="expired")
    again = players.post(f"{BASE}/tickets", body(), format="json", HTTP_IDEMPOTENCY_KEY="k").json()
    assert (again["id"], again["status"]) == (first["id"], "CANCELLED")


@pytest.mark.django_db(transaction=True)
def test_equal_requests_at_the_same_moment_make_one_ticket(tenant: Tenant, profile: str) -> None:
    _, key = api_key_create(tenant=tenant, name="game", scopes=["matchmaker"])

    def send() -> Any:
        answer = client_with(key, word="").post(f"{BASE}/tickets", body(), format="json", HTTP_IDEMPOTENCY_KEY="k")
        return answer.status_code, answer.json().get("id")

    answers = in_threads(*[send] * 4)
    assert {status for status, _ in answers} == {201}
    assert len({ticket for _, ticket in answers}) == 1
    assert Ticket.objects.count() == 1


def test_player_has_one_active_ticket(players: APIClient, make_profile: Callable[..., None], settings: Any) -> None:
    make_profile("duel")
    make_profile("quick")
    anna = body(player_id="anna@example.com")
    first = players.post(f"{BASE}/tickets", anna, format="json").json()
    assert first["player_id"] == "anna@example.com"
    for path, asked in [
        ("tickets", anna),
        ("tickets", {**anna, "profile": "quick"}),
        ("groups", {**anna, "is_ready": True}),
        ("group-tickets", {"player_tickets": [body(), anna]}),
    ]:
        refused = players.post(f"{BASE}/{path}", asked, format="json")
        assert (refused.status_code, refused.json()["code"]) == (409, "player_has_ticket")
    assert Ticket.objects.count() == 1, "all or none"

    Ticket.objects.update(status=Status.HOST_ASSIGNED)
    assert players.post(f"{BASE}/tickets", anna, format="json").status_code == 201, "it may play again"
    Ticket.objects.all().delete()
    settings.MATCHMAKER_PLAYER_TICKET_SCOPE = "profile"
    codes = [
        players.post(f"{BASE}/tickets", {**anna, "profile": name}, format="json").status_code
        for name in ("duel", "quick", "duel")
    ]
    assert codes == [201, 201, 409]


@pytest.mark.parametrize("name", ["x" * 65, "a b", "x\u202egnp.exe", "-a", "a\nb"])
def test_player_id_is_plain_text(players: APIClient, profile: str, name: str) -> None:
    assert "player_id" in problems(players.post(f"{BASE}/tickets", body(player_id=name), format="json"))


def test_ready_member_says_so_again_and_gets_the_same_answer(players: APIClient, profile: str) -> None:
    made = players.post(f"{BASE}/groups", member(), format="json").json()
    path = f"{BASE}/groups/{made['group_id']}/members/{made['member_id']}"
    first, second = (players.patch(path, {"is_ready": True}, format="json") for _ in range(2))
    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json() == second.json()
    assert first.json()["status"] == "SEARCHING"
    assert players.patch(path, {"is_ready": False}, format="json").json()["code"] == "group_closed"
    Ticket.objects.update(status=Status.CANCELLED)
    assert players.patch(path, {"is_ready": True}, format="json").json()["code"] == "group_closed"


# -- groups ----------------------------------------------------------------------------------------


def member(ready: bool = False, elo: float = 1000, **more: Any) -> dict[str, Any]:
    return {"profile": "duel", "attributes": {"elo": elo}, "player_ip": None, "is_ready": ready, **more}


def test_group_searches_once_all_are_ready(players: APIClient, profile: str) -> None:
    first = players.post(f"{BASE}/groups", member(ready=True, is_ready=False), format="json")
    assert first.status_code == 201
    assert (first.json()["status"], first.json()["ticket_id"]) == ("INITIAL", None)
    path = f"{BASE}/groups/{first.json()['group_id']}"
    second = players.post(f"{path}/members", member(ready=True), format="json").json()
    assert second["status"] == "INITIAL"
    answer = players.patch(f"{path}/members/{first.json()['member_id']}", {"is_ready": True}, format="json").json()
    assert (answer["status"], answer["ticket_id"], answer["is_ready"]) == ("SEARCHING", answer["member_id"], True)
    assert players.get(path).json() == {"status": "SEARCHING", "team_id": None, "assignment": None}
    assert players.get(f"{BASE}/tickets/{second['member_id']}").json()["group_id"] == first.json()["group_id"]


def test_M11_group_that_searches_is_closed(players: APIClient, profile: str) -> None:
    group = players.post(f"{BASE}/groups", member(ready=True), format="json").json()
    path = f"{BASE}/groups/{group['group_id']}"
    for answer in (
        players.post(f"{path}/members", member(), format="json"),
        players.patch(f"{path}/members/{group['member_id']}", {"is_ready": False}, format="json"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (409, "group_closed")


def test_M11_group_over_its_size_is_refused(players: APIClient, profile: str) -> None:
    group = players.post(f"{BASE}/groups", member(), format="json").json()
    path = f"{BASE}/groups/{group['group_id']}/members"
    assert players.post(path, member(), format="json").status_code == 201
    answer = players.post(path, member(), format="json")
    assert (answer.status_code, answer.json()["code"]) == (409, "group_full")
    assert Ticket.objects.count() == 2


def test_M11_leaving_before_the_search_removes_one_and_lets_the_ready_ones_go(players: APIClient, profile: str) -> None:
    group = players.post(f"{BASE}/groups", member(ready=False), format="json").json()
    path = f"{BASE}/groups/{group['group_id']}"
    other = players.post(f"{path}/members", member(ready=True), format="json").json()
    assert players.delete(f"{path}/members/{group['member_id']}").status_code == 204
    assert players.get(f"{path}/members/{other['member_id']}").json()["status"] == "SEARCHING"


def test_M11_leaving_while_it_searches_cancels_everybody(players: APIClient, profile: str) -> None:
    body = {"player_tickets": [member(), member()]}
    first, second = players.post(f"{BASE}/group-tickets", body, format="json").json()["player_tickets"]
    assert players.delete(f"{BASE}/groups/{first['group_id']}/members/{first['id']}").status_code == 204
    assert players.get(f"{BASE}/tickets/{second['id']}").json()["status"] == "CANCELLED"


def test_group_of_another_profile_or_unmatchable_attributes_is_refused(
    players: APIClient, make_profile: Callable[..., None]
) -> None:
    rules = {"initial": {**CONFIG["rules"]["initial"], "mode": {"type": "string_equality"}}}
    make_profile("modes", rules=rules)
    make_profile()
    one = {"profile": "modes", "attributes": {"elo": 1, "mode": "x"}}
    group = players.post(f"{BASE}/groups", one, format="json").json()
    path = f"{BASE}/groups/{group['group_id']}/members"
    assert "profile" in problems(players.post(path, member(), format="json"))
    other = {"profile": "modes", "attributes": {"elo": 1, "mode": "y"}}
    assert problems(players.post(path, other, format="json")) == {"attributes.mode": "differs within the group"}


def test_group_tickets_are_answered_in_order_and_all_or_none(players: APIClient, profile: str) -> None:
    body = {"player_tickets": [member(elo=1), member(elo=2)]}
    answer = players.post(f"{BASE}/group-tickets", body, format="json")
    assert answer.status_code == 201
    tickets = [Ticket.objects.get(pk=ticket["id"]) for ticket in answer.json()["player_tickets"]]
    assert [ticket.attributes["elo"] for ticket in tickets] == [1, 2]
    assert tickets[0].group_id == tickets[1].group_id is not None
    bad = {"player_tickets": [member(), member(attributes={})]}
    assert problems(players.post(f"{BASE}/group-tickets", bad, format="json")) == {
        "player_tickets[1].attributes.elo": "is missing"
    }
    large = {"player_tickets": [member()] * 3}
    assert "at most 2" in problems(players.post(f"{BASE}/group-tickets", large, format="json"))["player_tickets"]
    mixed = {"player_tickets": [member(), member(profile="other")]}
    assert "different" in problems(players.post(f"{BASE}/group-tickets", mixed, format="json"))["player_tickets"]
    assert Ticket.objects.count() == 2


# -- backfills -------------------------------------------------------------------------------------


def test_backfill_round(api: APIClient, players: APIClient, profile: str) -> None:
    attributes = {"assignment": {"request_id": "000000000001-S"}}
    body = {"profile": profile, "attributes": attributes, "tickets": {"a": {"attributes": {"elo": 1000}}}}
    refused = players.post(f"{BASE}/backfills", body, format="json")
    assert (refused.status_code, refused.json()["code"]) == (403, "not_the_host")
    made = api.post(f"{BASE}/backfills", body, format="json")
    assert made.status_code == 201, made.content
    path = f"{BASE}/backfills/{made.json()['id']}"
    assert players.get(path).json()["status"] == "SEARCHING"
    assert players.get(path).json()["assigned_ticket"] is None
    assert players.delete(path).status_code == 204
    assert players.get(path).status_code == 404


@pytest.mark.parametrize(
    ("attributes", "tickets", "path"),
    [
        ({}, {"a": {"attributes": {"elo": 1}}}, "attributes.assignment.request_id"),
        ({"assignment": {"request_id": 7}}, {"a": {"attributes": {"elo": 1}}}, "attributes.assignment.request_id"),
        ({"assignment": {"request_id": "x-S"}}, {}, "attributes.elo"),
        ({"assignment": {"request_id": "x-S"}}, {"a": {"attributes": {"elo": "x"}}}, "attributes.elo"),
        ({"assignment": {"request_id": "x-S"}}, {"a": {"attributes": 3}}, "tickets"),
    ],
)
def test_bad_backfill_is_400(api: APIClient, profile: str, attributes: Any, tickets: Any, path: str) -> None:
    body = {"profile": profile, "attributes": attributes, "tickets": tickets}
    assert path in problems(api.post(f"{BASE}/backfills", body, format="json"))


# -- profiles --------------------------------------------------------------------------------------


def versions(api: APIClient, **changes: Any) -> Any:
    body = {"config": {**CONFIG, **changes}, "activate": True}
    return api.post(f"{BASE}/profiles/duel/versions", body, format="json")


def test_versions_are_numbered_compared_activated_and_rolled_back(api: APIClient) -> None:
    assert [versions(api).json()["number"], versions(api, max_deployment_retry_count=1).json()["number"]] == [1, 2]
    third = api.post(f"{BASE}/profiles/duel/versions", {"config": CONFIG, "note": "back"}, format="json").json()
    assert (third["number"], third["is_active"]) == (3, False)
    assert api.get(f"{BASE}/profiles").json() == {
        "profiles": [{"name": "duel", "active": 2}],
        "next_cursor": None,
    }
    changes = api.get(f"{BASE}/profiles/duel/diff", {"old": 1, "new": 2}).json()["changes"]
    assert changes == [{"path": "max_deployment_retry_count", "old": None, "new": 1}]
    assert api.post(f"{BASE}/profiles/duel/versions/3/activate").json()["is_active"] is True
    assert [api.post(f"{BASE}/profiles/duel/rollback").json()["number"] for _ in range(2)] == [2, 1]
    assert api.post(f"{BASE}/profiles/duel/rollback").json()["code"] == "no_earlier_version"
    shown = api.get(f"{BASE}/profiles/duel").json()
    assert (shown["active"]["number"], [version["number"] for version in shown["versions"]]) == (1, [3, 2, 1])


def test_bad_configuration_is_refused_with_path_and_reason(api: APIClient) -> None:
    found = problems(versions(api, host="best", rules={"initial": {"size": {"type": "x"}}}))
    assert found["config.host"] == "must be one of longest_waiting, best_connected"
    assert "config.rules.initial.size.type" in found
    checked = api.post(f"{BASE}/profiles:validate", {"config": {"host": "best"}}, format="json").json()
    assert checked["valid"] is False
    assert {"path": "host", "reason": "must be one of longest_waiting, best_connected"} in checked["problems"]
    assert api.post(f"{BASE}/profiles:validate", {"config": CONFIG}, format="json").json() == {
        "valid": True,
        "problems": [],
    }


def test_waiting_tickets_that_fit_move_to_the_new_version(api: APIClient, search: Search) -> None:
    search()
    versions(api, max_deployment_retry_count=1)
    assert Ticket.objects.get().version.number == 2
    versions(api, rules={"initial": {**CONFIG["rules"]["initial"], "mode": {"type": "string_equality"}}})
    assert Ticket.objects.get().version.number == 2


def test_groups_that_do_not_fit_the_new_version_as_a_group_keep_theirs(api: APIClient, players: APIClient) -> None:
    initial = {**CONFIG["rules"]["initial"], "mode": {"type": "string_equality"}}
    versions(api, rules={"initial": initial})
    attributes = {"elo": 1, "mode": "x"}
    for group in ([attributes] * 2, [attributes] * 1):
        tickets = {"player_tickets": [{"profile": "duel", "attributes": each} for each in group]}
        assert players.post(f"{BASE}/group-tickets", tickets, format="json").status_code == 201
    size = {"type": "player_count", "attributes": {"team_count": 2, "min_team_size": 1, "max_team_size": 1}}
    versions(api, rules={"initial": {**initial, "size": size}})
    by_version = Ticket.objects.order_by("version__number").values_list("version__number", flat=True)
    assert list(by_version) == [1, 1, 2], "a group of two is larger than a team"
    left = Ticket.objects.filter(version__number=1)[0]
    explained = players.get(f"{BASE}/tickets/{left.pk}/explanation").json()
    assert (explained["profile_version"], explained["is_active_version"]) == (1, False)
    assert Group.objects.filter(version__number=1).count() == 1


def test_configuration_file_is_imported_whole_or_the_answer_says_what_to_give(
    api: APIClient, players: APIClient
) -> None:
    ranked = {**CONFIG, "application": {"name": "game", "version": "1"}}
    config = {"version": "3.2.1", "inspect": True, "profiles": {"casual": CONFIG, "ranked": ranked}}
    refused = problems(api.post(f"{BASE}/profiles/duel/versions", {"config": config}, format="json"))
    assert "give one of its profiles ('casual', 'ranked')" in refused["config.profiles"]
    imported = api.post(f"{BASE}/profiles:import", {"config": config, "activate": True}, format="json")
    assert imported.json() == {"versions": [{"profile": name, "number": 1} for name in ("casual", "ranked")]}
    assert players.post(f"{BASE}/tickets", body(profile="casual"), format="json").status_code == 201
    config["profiles"]["broken"] = {"rules": 7}
    assert "config.profiles.broken.rules" in problems(
        api.post(f"{BASE}/profiles:import", {"config": config}, format="json")
    )
    assert ProfileVersion.objects.count() == 2, "all or none"


@pytest.mark.parametrize("path", ["profiles/none", "profiles/none/versions/1", "profiles/none/diff?old=1&new=2"])
def test_unknown_profile_is_404(api: APIClient, path: str) -> None:
    assert api.get(f"{BASE}/{path}").status_code == 404


# -- keys, limits, the rest ------------------------------------------------------------------------


def test_players_key_cannot_configure_or_look_around(players: APIClient, profile: str) -> None:
    """It stands in a game that anybody can take apart."""
    for answer in (
        players.post(f"{BASE}/profiles/duel/versions", {"config": CONFIG}, format="json"),
        players.get(f"{BASE}/profiles"),
        players.get(f"{BASE}/inspect/tickets"),
        players.get(f"{BASE}/inspect/matches"),
        players.get("/v1/relays/sessions"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")


def test_without_a_key_only_the_monitor_answers(db: None) -> None:
    assert APIClient().get(f"{BASE}/tickets/{'a' * 20}").status_code == 401
    assert APIClient().get(f"{BASE}/monitor").json() == {
        "status": "UNHEALTHY",
        "message": "Not working: matchmaker, manager.",
        "healthy_components": 0,
        "unhealthy_components": 2,
        "components": {"matchmaker": False, "manager": False},
    }


def test_M12_too_many_requests_are_429_with_retry_after(players: APIClient, profile: str) -> None:
    LocationSnapshot.objects.create(fetched_at=timezone.now())
    with override_settings(MATCHMAKER_REQUESTS_PER_MINUTE=3):
        answers = [players.get(f"{BASE}/locations/beacons") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert int(answers[-1]["Retry-After"]) > 0


def test_inspection_shows_no_ticket_id(api: APIClient, search: Search) -> None:
    ticket = search()
    answer = api.get(f"{BASE}/inspect/tickets", {"profile": "duel"})
    assert answer.json()["count"] == 1
    assert ticket["id"] not in answer.content.decode()


def test_assignment_is_sealed_in_the_database(search: Search) -> None:
    from django.db import connection

    ticket = search()
    Ticket.objects.filter(pk=ticket["id"]).update(assignment={"seat_key": "secret"})
    with connection.cursor() as cursor:
        cursor.execute("SELECT assignment FROM matchmaker_ticket")
        [stored] = cursor.fetchone()
    assert "secret" not in stored
    assert Ticket.objects.get().assignment == {"seat_key": "secret"}
    assert json.dumps(Ticket.objects.get().assignment)


def test_beacons_and_places_that_are_not_there_are_warned_of(players: APIClient, profile: str) -> None:
    place = {"city": "Frankfurt", "country": "D", "administrative_division": "", "slug": "fra"}
    LocationSnapshot.objects.create(locations=[place], fetched_at=timezone.now())
    body = {"profile": "duel", "attributes": {"elo": 1}, "latencies": {"fra": 1, "far": 2}, "latensies": {}}
    answer = players.post(f"{BASE}/tickets", body, format="json").json()
    assert {warning["field"]: warning["code"] for warning in answer["warnings"]} == {
        "latensies": "unknown_field",
        "latencies.far": "place_unknown",
    }
    refused = players.post(f"{BASE}/tickets?strict=1", body, format="json")
    assert (refused.status_code, Ticket.objects.count()) == (400, 1)


def test_round_trips_of_0_and_less_are_no_measurement_and_are_warned_of(
    players: APIClient, make_profile: Callable[..., None]
) -> None:
    """What an SDK or a browser reports for a ping that failed."""
    beacons = {"type": "latencies", "attributes": {"difference": 100, "max_latency": 200}}
    make_profile(rules={"initial": {**CONFIG["rules"]["initial"], "beacons": beacons}})
    measurements = [{**GOOD, "node": "a", "rtt_ms": ms} for ms in (0, -1, 5)]
    body = {
        "profile": "duel",
        "attributes": {"elo": 1, "beacons": {"A": 0, "B": -1, "C": 7}},
        "latencies": {"a": 0, "b": -1, "c": 5},
        "measurements": measurements,
    }
    answer = players.post(f"{BASE}/tickets", body, format="json").json()
    assert {each["field"] for each in answer["warnings"] if each["code"] == "not_measured"} == {
        "attributes.beacons.A",
        "attributes.beacons.B",
        "latencies.a",
        "latencies.b",
        "measurements[0].rtt_ms",
        "measurements[1].rtt_ms",
    }
    ticket = Ticket.objects.get()
    assert ticket.network_measurements["latencies"] == {"c": 5}
    assert [each["rtt_ms"] for each in ticket.network_measurements["measurements"]] == [5]
    assert ticket.attributes["beacons"] == {"C": 7}


def test_repeated_request_finds_its_ticket_also_when_there_is_room_for_no_more(
    players: APIClient, profile: str
) -> None:
    body, headers = {"profile": "duel", "attributes": {"elo": 1}}, {"HTTP_IDEMPOTENCY_KEY": "once"}
    first = players.post(f"{BASE}/tickets", body, format="json", **headers).json()
    forget_counts()
    with override_settings(MATCHMAKER_MAX_TICKETS_PER_TENANT=1):
        assert players.post(f"{BASE}/tickets", body, format="json", **headers).json()["id"] == first["id"]
        assert players.post(f"{BASE}/tickets", body, format="json").status_code == 429
    forget_counts()


def test_a_ticket_costs_few_queries(
    players: APIClient, search: Search, settings: Any, django_assert_num_queries: Any
) -> None:
    """With what is remembered for a second: SAVEPOINT, INSERT, RELEASE for the ticket, one SELECT to follow it."""
    forget_active_versions()
    settings.LOOKUP_CACHE_SECONDS = 600
    ticket = search()
    body = {"profile": "duel", "attributes": {"elo": 1}}
    players.post(f"{BASE}/tickets", body, format="json")
    players.get(f"{BASE}/tickets/{ticket['id']}")
    with django_assert_num_queries(3):
        assert players.post(f"{BASE}/tickets", body, format="json", HTTP_IDEMPOTENCY_KEY="k").status_code == 201
    with django_assert_num_queries(1):
        players.get(f"{BASE}/tickets/{ticket['id']}/events", HTTP_ACCEPT="text/event-stream")


@pytest.mark.django_db(transaction=True)
def test_a_ticket_is_one_statement_and_still_one_of_two_for_one_player(
    players: APIClient, search: Search, settings: Any, django_assert_num_queries: Any
) -> None:
    """Neither BEGIN nor COMMIT. What the constraint refuses leaves the connection usable."""
    forget_active_versions()
    settings.LOOKUP_CACHE_SECONDS = 600
    search()
    body = {"profile": "duel", "attributes": {"elo": 1}, "player_id": "anna"}
    with django_assert_num_queries(1):
        assert players.post(f"{BASE}/tickets", body, format="json", HTTP_IDEMPOTENCY_KEY="k").status_code == 201
    repeated = players.post(f"{BASE}/tickets", body, format="json", HTTP_IDEMPOTENCY_KEY="k")
    other = players.post(f"{BASE}/tickets", body, format="json", HTTP_IDEMPOTENCY_KEY="l")
    assert (repeated.status_code, other.status_code, other.json()["code"]) == (201, 409, "player_has_ticket")


def test_a_ticket_of_a_player_who_measured_nothing_is_taken(
    players: APIClient, make_profile: Callable[..., None]
) -> None:
    beacon = {"node": "a", "host": "203.0.113.7", "fqdn": "a", "tcp_port": 1, "udp_port": 2}
    place = {"city": "Oslo", "country": "", "continent": "", "administrative_division": "", "timezone": ""}
    LocationSnapshot.objects.create(
        beacons=[{**beacon, "location": place}], locations=[{"slug": "oslo", "city": "Oslo"}], fetched_at=timezone.now()
    )
    size = {"type": "player_count", "attributes": {"team_count": 2, "min_team_size": 1, "max_team_size": 1}}
    for name, attributes in (("worth", {"default_latency": 150}), ("plain", {})):
        pings = {"type": "latencies", "attributes": {"difference": 100, "max_latency": 200, **attributes}}
        make_profile(name, rules={"initial": {"size": size, "pings": pings}})
    for name in ("worth", "plain"):
        for pings in ({}, {"Oslo": 0}, {"Oslo": 0, "Lima": -1}):
            asked = {"player_ip": "192.0.2.1", "attributes": {"pings": pings}, "profile": name}
            answer = players.post(f"{BASE}/tickets", asked, format="json")
            assert answer.status_code == 201, answer.content
            assert Ticket.objects.get(pk=answer.json()["id"]).attributes == {"pings": {}}


def test_an_assignment_that_another_version_stored_is_shown(players: APIClient, profile: str) -> None:
    group = players.post(f"{BASE}/groups", {"profile": profile, "attributes": {"elo": 1}}, format="json").json()
    port = {"internal": 1, "external": 1, "link": "r.example.com:1", "protocol": "UDP"}
    ports = {"gameport": port, "server": port, "client": port}
    stored = {"fqdn": "r.example.com", "public_ip": "203.0.113.9", "request_id": "x", "seat": 0, "ports": ports}
    Ticket.objects.update(assignment=stored, status=Status.HOST_ASSIGNED)
    path = f"{BASE}/groups/{group['group_id']}"
    for shown in (
        players.get(f"{BASE}/tickets/{group['member_id']}"),
        players.get(f"{path}/members/{group['member_id']}"),
        players.get(path),
    ):
        assert shown.status_code == 200
        assert shown.json()["assignment"]["public_ip"] == "203.0.113.9"
    assert players.get(f"{BASE}/tickets/{group['member_id']}").json()["assignment"]["relay_ips"] == ["203.0.113.9"]


def _cursor(*values: str) -> str:
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode()


@pytest.mark.parametrize(
    "cursor",
    [
        _cursor("2026-01-01T00:00:00Z", "a\0b"),
        _cursor("2026-01-01T00:00:00Z", "\ud800"),
        _cursor("0001-01-01T00:00:00+23:59", "a"),
        _cursor("9999-12-31T23:59:59-23:59", "a"),
        _cursor("a"),
    ],
)
@pytest.mark.parametrize("path", [f"{BASE}/inspect/tickets", f"{BASE}/inspect/matches", "/v1/relays/sessions"])
def test_a_cursor_that_no_list_gave_is_400(api: APIClient, path: str, cursor: str) -> None:
    assert problems(api.get(path, {"cursor": cursor})).keys() == {"cursor"}


def test_a_rollback_sent_again_does_not_go_back_twice(api: APIClient, make_profile: Callable[..., None]) -> None:
    for seconds in (60, 61, 62):
        make_profile(ticket_expiration_period=f"{seconds}s")
    answers = [api.post(f"{BASE}/profiles/duel/rollback?active=3") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 409]
    assert answers[1].json()["code"] == "version_changed"
    assert api.get(f"{BASE}/profiles/duel").json()["active"]["number"] == 2

"""The REST client against an HTTP server with the answers of each test."""

import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from causeway_client.credentials import Standby
from causeway_client.rest import (
    ManagerError,
    ManagerUnreachable,
    RelayManager,
    connect_arguments,
    edgegap_arguments,
)

SESSION = {
    "session_id": "3960c873aafd-S",
    "authorization_token": 3_500_589_645,
    "relay": {"ip": "203.0.113.7", "host": "fra-1", "ports": {"server": {"port": 31000}, "client": {"port": 31001}}},
    "session_users": [
        {"seat": 0, "authorization_token": 1, "connect_token": "token0", "seat_key": "key0"},
        {"seat": 1, "authorization_token": 2, "connect_token": "token1", "seat_key": "key1"},
    ],
}


class Manager:
    """Keeps the requests, answers with `answer`."""

    def __init__(self):
        self.requests = []
        self.answer = (200, json.dumps(SESSION).encode())
        manager = self

        class Handler(BaseHTTPRequestHandler):
            def handle_any(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                manager.requests.append((self.command, self.path, self.headers, json.loads(body) if body else None))
                status, content = manager.answer
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PATCH = do_DELETE = handle_any

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def manager():
    manager = Manager()
    yield manager
    manager.server.shutdown()
    manager.server.server_close()


@pytest.fixture
async def client(manager):
    async with RelayManager(manager.url, "cw_secret") as client:
        yield client


async def test_create_sends_users_options_and_the_key(client, manager):
    session = await client.create_session([{"ip": "192.0.2.1"}], topology="mesh", idempotency_key="once")
    assert session == SESSION
    ((method, path, headers, body),) = manager.requests
    assert (method, path) == ("POST", "/v1/relays/sessions")
    assert headers["Authorization"] == "token cw_secret"
    assert headers["Idempotency-Key"] == "once"
    assert body == {"users": [{"ip": "192.0.2.1"}], "topology": "mesh"}


async def test_the_other_calls_have_edgegaps_paths_and_bodies(client, manager):
    await client.get_session("3960c873aafd-S")
    await client.authorize_user("3960c873aafd-S", "192.0.2.9", player_id="kim")
    await client.revoke_user("3960c873aafd-S", 4_000_000_001)
    await client.change_direct_modes("3960c873aafd-S", direct_mode="ask", users=[{"seat": 1, "direct_mode": "direct"}])
    seen = [(method, path, body) for method, path, _, body in manager.requests]
    assert seen == [
        ("GET", "/v1/relays/sessions/3960c873aafd-S", None),
        (
            "POST",
            "/v1/relays/sessions:authorize-user",
            {"session_id": "3960c873aafd-S", "user_ip": "192.0.2.9", "player_id": "kim"},
        ),
        (
            "POST",
            "/v1/relays/sessions:revoke-user",
            {"session_id": "3960c873aafd-S", "authorization_token": 4_000_000_001},
        ),
        (
            "PATCH",
            "/v1/relays/sessions/3960c873aafd-S",
            {"direct_mode": "ask", "users": [{"seat": 1, "direct_mode": "direct"}]},
        ),
    ]


async def test_an_empty_answer_is_fine(client, manager):
    manager.answer = (204, b"")
    await client.delete_session("../admin")
    assert manager.requests[0][1] == "/v1/relays/sessions/..%2Fadmin"
    assert await client.revoke_user("3960c873aafd-S", 1) == {}


async def test_beacons_are_a_list(client, manager):
    manager.answer = (200, json.dumps({"count": 1, "locations": [{"host": "203.0.113.7", "udp_port": 31001}]}).encode())
    assert await client.list_beacons() == [{"host": "203.0.113.7", "udp_port": 31001}]


async def test_an_error_has_status_code_message_and_details(client, manager):
    manager.answer = (
        503,
        json.dumps({"message": "no relay", "code": "no_relay", "details": {"attempts": []}}).encode(),
    )
    with pytest.raises(ManagerError) as caught:
        await client.create_session([])
    assert (caught.value.status, caught.value.code, caught.value.details) == (503, "no_relay", {"attempts": []})
    assert "cw_secret" not in str(caught.value)


async def test_an_error_that_is_no_json_is_still_a_typed_one(client, manager):
    manager.answer = (502, b"<html>Bad Gateway</html>")
    with pytest.raises(ManagerError) as caught:
        await client.get_session("3960c873aafd-S")
    assert (caught.value.status, caught.value.code) == (502, "unknown")


async def test_no_answer_is_a_typed_error():
    async with RelayManager("http://127.0.0.1:1", "cw_secret") as client:
        with pytest.raises(ManagerUnreachable):
            await client.get_session("3960c873aafd-S")


def test_a_seats_entry_becomes_connect_arguments():
    assert connect_arguments(SESSION, seat=0) == {
        "host": "203.0.113.7",
        "port": 31000,
        "connect_token": "token0",
        "seat_key": "key0",
        "peer_keys": "",
        "websocket_url": None,
        "offer_key": "",
        "standby": None,
    }
    assert connect_arguments(SESSION, seat=1)["port"] == 31001
    assert edgegap_arguments(SESSION, seat=1) == {
        "host": "203.0.113.7",
        "port": 31001,
        "user_token": 2,
        "session_token": 3_500_589_645,
    }


def test_the_answer_of_authorize_user_becomes_connect_arguments():
    answer = {key: value for key, value in SESSION.items() if key != "session_users"}
    answer["session_user"] = {"seat": 2, "connect_token": "token2", "seat_key": "key2", "authorization_token": 3}
    assert connect_arguments(answer, seat=2)["connect_token"] == "token2"
    answer["session_user"]["peer_keys"] = "cGVlcg=="
    assert connect_arguments(answer, seat=2)["peer_keys"] == "cGVlcg=="
    ports = {"server": {"port": 31000}, "client": {"port": 31001}}
    standby = {"relay_ips": ["203.0.113.9"], "ports": ports, "connect_token": "other", "location": "paris"}
    answer["session_user"] |= {"offer_key": "b2ZmZXI=", "standby": standby}
    arguments = connect_arguments(answer, seat=2)
    assert arguments["offer_key"] == "b2ZmZXI="
    assert Standby.of(arguments["standby"]) == Standby(["203.0.113.9"], 31001, "other")
    answer["session_user"]["websocket_url"] = "wss://fra-1.example.com/relay/31001"
    assert connect_arguments(answer, seat=2)["websocket_url"] == "wss://fra-1.example.com/relay/31001"


@pytest.mark.parametrize("session", [SESSION, {**SESSION, "relay": None}, {"session_users": [], "relay": None}])
def test_a_seat_that_is_not_there_is_an_error(session):
    with pytest.raises(KeyError, match="seat 9"):
        connect_arguments(session, seat=9)


def test_a_player_of_both_families_gets_both_addresses_and_another_its_own():
    addresses = {0: ["203.0.113.7", "2001:db8::7"], 1: ["2001:db8::7"]}
    users = [{**user, "relay_ips": addresses[user["seat"]]} for user in SESSION["session_users"]]
    session = {**SESSION, "session_users": users}
    assert connect_arguments(session, seat=0)["host"] == addresses[0]
    assert edgegap_arguments(session, seat=1)["host"] == "2001:db8::7"


def test_a_dialect_that_is_off_is_an_error():
    user = {"seat": 0, "authorization_token": 1, "connect_token": None, "seat_key": None}
    session = {**SESSION, "session_users": [user]}
    assert edgegap_arguments(session, seat=0)["user_token"] == 1
    with pytest.raises(KeyError, match="connect_token"):
        connect_arguments(session, seat=0)


async def test_an_errors_text_has_field_code_url_and_the_next_step_and_no_secret(client, manager):
    problems = {"users[0].ip": [{"message": "This field is required.", "code": "required"}]}
    document = {"message": "The request is not valid.", "code": "invalid", "details": problems}
    manager.answer = (400, json.dumps(document).encode())
    with pytest.raises(ManagerError) as raised:
        await client.create_session([{}])
    text = str(raised.value)
    assert text.startswith("400 invalid: The request is not valid. users[0].ip: This field is required.")
    assert "[POST http://127.0.0.1:" in text and "/v1/relays/sessions]" in text
    assert text.endswith("Next: correct the fields named here and send the request again.")


async def test_an_unreachable_managers_error_names_the_url():
    async with RelayManager("http://127.0.0.1:9/causeway", "secret") as client:
        with pytest.raises(ManagerUnreachable) as raised:
            await client.list_beacons()
    assert "[GET http://127.0.0.1:9/causeway/v1/locations/beacons]" in str(raised.value)
    assert "Next: check the URL" in str(raised.value)
    assert "secret" not in str(raised.value)


async def test_a_client_for_each_search_does_not_read_the_certificate_authorities_each_time(monkeypatch):
    read = []
    read_them = ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", lambda **given: read.append(1) or read_them(**given))
    for _ in range(3):
        await RelayManager("https://127.0.0.1:1", "key").aclose()
    assert len(read) <= 1  # 0 where an earlier test of this process has read them

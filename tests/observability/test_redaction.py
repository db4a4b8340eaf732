import pytest

from observability.redaction import HIDDEN, redacted, redacted_value

SECRET = "hunter2-Zq9_x"  # what must be gone
KEY = "cw_0123456789ab_" + "s3cret-_" * 5 + "abc"


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: token {SECRET}",
        f"authorization: Bearer token {SECRET}",
        f"headers={{'Authorization': 'Basic {SECRET}', 'Accept': '*/*'}}",
        f"{{'Authorization': b'{SECRET}'}}",
        f'{{"connect_token": "{SECRET}", "seat": 1}}',
        f"{{'seat_key': '{SECRET}'}}",
        f"authorization_token={SECRET}&page=1",
        f"/v1/tickets?token={SECRET}",
        f"user_token = {SECRET}, session_token={SECRET}",
        f"control_key={SECRET} node_key={SECRET} join_key={SECRET}",
        f"CAUSEWAY_NODE_JOIN_KEY={SECRET}",
        f"POSTGRES_PASSWORD={SECRET} SECRET_KEY={SECRET}",
        f"token_keys='7:{SECRET}'",
        f"password: x\npassword={SECRET}",
        f"Cookie: sessionid={SECRET}; csrftoken={SECRET}",
        f"webhook_secret={SECRET}",
        f"postgres://causeway:{SECRET}@db:5432/causeway could not be reached",
        f"redis://:{SECRET}@redis:6379/0",
        f"ws+wss://a:{SECRET}@b/ and amqp://c:{SECRET}@d/",
    ],
)
def test_no_secret_is_left_in_a_text(text: str) -> None:
    assert SECRET not in redacted(text, addresses=True)
    assert SECRET not in redacted(text)
    assert HIDDEN in redacted(text)


def test_our_keys_keep_what_tells_them_apart_wherever_they_stand() -> None:
    assert redacted(f"key {KEY}, x={KEY[:-1]}") == f"key cw_0123456789ab_{HIDDEN}, x=cw_0123456789ab_{HIDDEN}"


def test_bearer_credentials_are_hidden_without_their_header() -> None:
    assert redacted("sent Bearer abcdefgh1234567890abcd") == f"sent Bearer {HIDDEN}"


@pytest.mark.parametrize(
    "text",
    [
        "session 0123456789ab-S is ready on fra-1/0",
        "token keys changed: 2 now",
        "drop_unknown_token 5, bad_tag 3",
        "the manager refuses this node: The key was revoked. (unauthorized)",
        "node fra-1: control API at http://10.0.0.7:8900 and http://[fd00::7]:8900, version 1.2.3.4.5",
        "bearer of bad news, token of appreciation",
        "at 12:34:56, in 0:00:01; a ratio of 1:2:3",
        "Uvicorn running on http://0.0.0.0:8000 (Press CTRL+C to quit)",
    ],
)
def test_what_operators_need_is_left(text: str) -> None:
    assert redacted(text) == text


@pytest.mark.parametrize(
    "address", ["192.0.2.7", "127.0.0.1", "2001:db8::7", "::1", "fe80::1%eth0", "::ffff:192.0.2.7", "[2001:db8::7]"]
)
def test_addresses_are_for_debugging_only(address: str) -> None:
    text = f"player at {address} left, ({address}), from {address}:4000"
    assert redacted(text, addresses=True) == text
    assert address.strip("[]") not in redacted(text)


def test_values_are_hidden_by_their_names_however_deep() -> None:
    event = {
        "connect_token": b"abc",
        "authorization_token": 123,
        "player": {"ip": "192.0.2.7", "player_ip": "192.0.2.8", "id": "anna"},
        "headers": [{"Authorization": "x"}, f"token={SECRET}"],
        "seat_key": "",
        "tokens_left": 5,
        "ratio": 0.5,
    }
    assert redacted_value(event) == {
        "connect_token": HIDDEN,
        "authorization_token": HIDDEN,
        "player": {"ip": HIDDEN, "player_ip": HIDDEN, "id": "anna"},
        "headers": [{"Authorization": HIDDEN}, f"token={HIDDEN}"],
        "seat_key": "",
        "tokens_left": 5,
        "ratio": 0.5,
    }
    assert redacted_value(event, addresses=True)["player"]["ip"] == "192.0.2.7"


def test_objects_are_written_out_before_they_are_looked_at() -> None:
    assert redacted_value({"error": ValueError(f"token={SECRET}")}) == {"error": f"token={HIDDEN}"}

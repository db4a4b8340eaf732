import json

import pytest

from causeway_client import credentials
from causeway_client.credentials import CredentialsError

NAMES = ("connect_token", "seat_key")


def test_base64url_is_taken_with_and_without_padding():
    assert credentials.decode_secret("-_8") == credentials.decode_secret("-_8=") == b"\xfb\xff"
    assert credentials.decode_secret(b"raw") == b"raw"


@pytest.mark.parametrize("text", ["!!!!", "abcde", "sécret"])
def test_anything_else_is_refused_and_not_shown(text):
    with pytest.raises(CredentialsError) as caught:
        credentials.decode_secret(text)
    assert text not in str(caught.value)
    assert caught.value.__cause__ is None


def test_the_environment_is_read():
    environ = {"CAUSEWAY_CONNECT_TOKEN": "abc", "CAUSEWAY_SEAT_KEY": "def"}
    assert credentials.load(NAMES, environ, None) == {"connect_token": "abc", "seat_key": "def"}


def test_a_file_may_hold_more_than_is_needed(tmp_path):
    path = tmp_path / "credentials.json"
    path.write_text(json.dumps({"connect_token": "abc", "seat_key": "def", "seat": 1, "ip_address": "192.0.2.1"}))
    assert credentials.load(NAMES, {}, path) == {"connect_token": "abc", "seat_key": "def"}


@pytest.mark.parametrize("value", [None, "", True, 1.5, ["abc"]])
def test_a_missing_or_odd_value_is_named(tmp_path, value):
    path = tmp_path / "credentials.json"
    path.write_text(json.dumps({"connect_token": "abc", "seat_key": value}))
    with pytest.raises(CredentialsError, match="no seat_key"):
        credentials.load(NAMES, {}, path)


@pytest.mark.parametrize("content", ["", "not json", "[1]"])
def test_a_bad_file_is_refused_and_not_shown(tmp_path, content):
    path = tmp_path / "credentials.json"
    path.write_text(content)
    with pytest.raises(CredentialsError, match=r"credentials\.json"):
        credentials.load(NAMES, {}, path)
    with pytest.raises(CredentialsError, match="FileNotFoundError"):
        credentials.load(NAMES, {}, tmp_path / "absent")


@pytest.mark.parametrize("text", ["", "-1", "4294967296", "1e3", "٣"])
def test_an_edgegap_token_is_a_32_bit_number(text):
    assert credentials.decode_number("user_token", "4000000001") == 4_000_000_001
    with pytest.raises(CredentialsError, match="user_token"):
        credentials.decode_number("user_token", text)


STANDBY = {"relay_ips": ["203.0.113.9"], "ports": {"client": {"port": 31001}}, "connect_token": "other"}


def test_a_standby_relay_is_read_from_the_entry_of_a_user(tmp_path):
    file = tmp_path / "user.json"
    file.write_text(json.dumps({"connect_token": "token", "standby": STANDBY}))
    found = credentials.load(("connect_token",), {}, file, optional=("standby",))
    assert credentials.decode_standby(found["standby"]) == credentials.Standby(["203.0.113.9"], 31001, "other")
    assert credentials.decode_standby(None) is None


@pytest.mark.parametrize("text", ["{", "[]", "1", "{}", json.dumps({**STANDBY, "ports": {}})])
def test_an_unreadable_standby_relay_is_refused(text):
    with pytest.raises(credentials.CredentialsError) as caught:
        credentials.decode_standby(text)
    assert "other" not in str(caught.value)

import pytest

from nodeapi.grants import parse_grant
from relaynode.core.grants import GrantRefused, read_grant
from tests.relaynode.players import grant_json


def test_a_grant_is_read() -> None:
    assert read_grant(grant_json()) == parse_grant(grant_json())


def test_an_invalid_grant_is_refused_with_a_code_and_its_field() -> None:
    with pytest.raises(GrantRefused) as caught:
        read_grant(grant_json() | {"worker": 256})
    assert (caught.value.code, caught.value.field) == ("invalid", "worker")
    assert caught.value.message == "worker: expected `int` <= 255"

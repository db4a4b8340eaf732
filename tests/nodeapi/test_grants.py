import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeapi.grants import Grant, Limits, parse_grant
from nodeapi.strict_json import InvalidDocument, as_builtins
from tests.relaynode.players import grant_json


def test_a_grant_survives_json() -> None:
    data = grant_json(seats=3, limits={"packets": 5, "bytes": 6}, revoked={2})
    grant = parse_grant(data)
    assert as_builtins(grant) == data
    assert parse_grant(json.loads(json.dumps(as_builtins(grant)))) == grant
    assert grant.seats[2].revoked
    assert grant.limits == Limits(5, 6)


def test_fields_of_a_later_version_are_ignored() -> None:
    assert parse_grant(grant_json() | {"colour": "blue"}) == parse_grant(grant_json())


def test_without_the_edgegap_dialect_tokens_may_be_null() -> None:
    data = grant_json(dialects=["native"], token=None)
    data["seats"][0]["token"] = None
    grant = parse_grant(data)
    assert (grant.token, grant.seats[0].token) == (None, None)


def test_tokens_are_in_no_repr() -> None:
    grant = parse_grant(grant_json())
    assert not any(str(token) in repr(grant) for token in (grant.token, *(seat.token for seat in grant.seats)))


def changed(path: str, value: object) -> dict[str, Any]:
    data = grant_json()
    *parents, last = (int(name) if name.isdigit() else name for name in path.split("."))
    target: Any = data
    for name in parents:
        target = target[name]
    target[last] = value
    return data


@pytest.mark.parametrize(
    ("path", "values", "field"),
    [
        ("session", [None, 5, "", "3960C873AAFD-S", "3960c873aafd", "3960c873aafd-S\n", "x" * 14], "session"),
        ("revision", [None, -1, 1.5, "1", True, 2**32], "revision"),
        ("worker", [None, -1, 256, "0"], "worker"),
        ("token", [0, -1, 2**32, "5", True, 0x42A41221, None], "token"),
        ("topology", [None, "star", ["host"]], "topology"),
        ("dialects", [None, [], "native", ["native", "morse"], [[]], [None]], "dialects"),
        ("idle_timeout", [None, 0, -1, "300", True, math.nan, math.inf, 10**400], "idle_timeout"),
        ("expires_at", [None, 0, "soon", math.nan, 1e12], "expires_at"),
        ("limits", [None, 5, []], "limits"),
        ("limits.packets", [None, -1, 1.5, 2**32, True], "limits.packets"),
        ("limits.bytes", [None, -1, 2**32], "limits.bytes"),
        ("seats", [None, {}, "all"], "seats"),
        ("seats.1", [None, 5, []], "seats[1]"),
        ("seats.1.seat", [None, -1, 255, "1", False], "seats[1].seat"),
        ("seats.1.token", [0, -1, 2**32, "5", 0xC0, 0xDF, 0x123456C4], "seats[1].token"),
        ("seats.1.revoked", [None, 0, "no"], "seats[1].revoked"),
        ("seats.1.direct_mode", [None, 1, "p2p"], "seats[1].direct_mode"),
        ("direct_grace", [None, -1, 601, 1.5, "60"], "direct_grace"),
        ("role", [None, "primary", 1], "role"),
        ("epoch", [None, -1, 2**16, "1"], "epoch"),
        ("seats.1.offer", ["standby", 5], "seats[1].offer"),
        ("seats.1.limits", [None], "seats[1].limits"),
        ("seats.1.limits.bytes", [None, -1], "seats[1].limits.bytes"),
        ("seats.1.seat", [0], "seats"),
        ("seats.1.token", [grant_json()["seats"][0]["token"]], "seats"),
    ],
)
def test_bad_fields_are_named(path: str, values: list[object], field: str) -> None:
    for value in values:
        with pytest.raises(InvalidDocument) as caught:
            parse_grant(changed(path, value))
        assert caught.value.field == field
        assert str(caught.value).startswith(field)


OFFER = {
    "id": 7,
    "kind": "move",
    "ip": "203.0.113.9",
    "port": 31001,
    "token": "A" * 160,
    "second_ip": "2001:db8::9",
    "deadline_ms": 5000,
}


def test_an_offer_survives_json_and_shows_no_token() -> None:
    data = grant_json(offers={1: OFFER}, role="standby", epoch=3)
    grant = parse_grant(data)
    assert as_builtins(grant) == data
    assert (grant.role, grant.epoch, grant.seats[0].offer) == ("standby", 3, None)
    assert "AAAA" not in repr(grant.seats[1].offer)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("id", [None, 0, -1, 2**32]),
        ("kind", [None, "other", 1]),
        ("ip", [None, "", "nowhere", "fe80::1%eth0", 5]),
        ("second_ip", [None, "nowhere", "192.0.2.1", 5]),
        ("port", [None, 0, 65_536]),
        ("token", [None, "A" * 159, "A" * 161, "A" * 159 + "=", "A" * 159 + "\n", "A" * 160 + "\n"]),
        ("deadline_ms", [None, -1, 600_001]),
    ],
)
def test_a_bad_field_of_an_offer_is_named(name: str, values: list[object]) -> None:
    for value in values:
        with pytest.raises(InvalidDocument) as caught:
            parse_grant(grant_json(offers={1: OFFER | {name: value}}))
        assert caught.value.field.startswith("seats[1].offer")


@pytest.mark.parametrize("low_byte", [0x00, 0x3F, 0xBF, 0xE0, 0xFF])
def test_low_bytes_beside_the_native_ones_are_good(low_byte: int) -> None:
    parse_grant(changed("seats.1.token", 0x12345600 | low_byte))


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)


@given(JSON)
def test_any_json_is_a_grant_or_refused(data: Any) -> None:
    accepted_or_refused(lambda: parse_grant(data))


@given(st.sampled_from(sorted(grant_json())), JSON)
def test_a_grant_with_any_value_in_a_field_is_a_grant_or_refused(name: str, value: Any) -> None:
    accepted_or_refused(lambda: parse_grant(grant_json() | {name: value}))


def accepted_or_refused(make: Callable[[], Grant]) -> None:
    try:
        grant = make()
    except InvalidDocument:
        pass
    else:
        assert parse_grant(as_builtins(grant)) == grant

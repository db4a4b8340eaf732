import gzip
import io
import tracemalloc
from typing import Any

import pytest
from rest_framework.exceptions import ParseError
from rest_framework.test import APIClient

from web.http.parsers import MAX_DEPTH, BoundedJSONParser, TooLarge


def parse(body: bytes) -> Any:
    return BoundedJSONParser().parse(io.BytesIO(body))


def test_json_is_read() -> None:
    assert parse('{"a": [1, 2.5, "ü\U0001f600", null, true]}'.encode()) == {"a": [1, 2.5, "ü\U0001f600", None, True]}


def test_body_at_the_limit_is_read_and_one_byte_more_is_413(settings: Any) -> None:
    settings.MAX_BODY_BYTES = 10
    assert parse(b'"12345678"') == "12345678"
    with pytest.raises(TooLarge):
        parse(b'"123456789"')


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"NaN",
        b"[Infinity]",
        b"[-Infinity]",
        b"[1e999]",
        b"[-1e999]",
        b"9" * 5000,
        b"[" + b"9" * 400 + b"]",
        b'{"a": -' + b"9" * 400 + b"}",
        b"18446744073709551616",
        b"-9223372036854775809",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'"\\u0000"',
        b'{"\\u0000": 1}',
        b'["\\ud800"]',
        b'"\\udfff"',
    ],
)
def test_what_json_or_a_database_cannot_hold_is_refused(body: bytes) -> None:
    with pytest.raises(ParseError):
        parse(body)


def test_pair_of_surrogates_is_a_character() -> None:
    assert parse(b'"\\ud83d\\ude00"') == "\U0001f600"


def test_nesting_is_limited() -> None:
    assert parse(b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1))
    with pytest.raises(ParseError, match="deeper"):
        parse(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1))


def test_integers_of_64_bits_are_read() -> None:
    assert parse(b"[18446744073709551615, -9223372036854775808]") == [2**64 - 1, -(2**63)]


def packed(body: bytes) -> Any:
    return {"data": gzip.compress(body), "content_type": "application/json", "HTTP_CONTENT_ENCODING": "gzip"}


ADDRESSES = b'{"addresses": ["192.0.2.1"]}'


def test_gzip_body_is_unpacked(api: APIClient) -> None:
    assert api.post("/v1/ips/lookup", **packed(ADDRESSES)).json()["addresses"][0]["ip_address"] == "192.0.2.1"


def test_gzip_bomb_is_413_and_never_unpacked(api: APIClient) -> None:
    bomb = packed(b" " * 200_000_000)
    tracemalloc.start()
    response = api.post("/v1/ips/lookup", **bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (response.status_code, response.json()["code"]) == (413, "too_large")
    assert peak < 20_000_000


@pytest.mark.parametrize(
    "damaged", [gzip.compress(ADDRESSES, mtime=0)[:-9], ADDRESSES, b""], ids=["cut", "plain", "empty"]
)
def test_damaged_gzip_body_is_400(api: APIClient, damaged: bytes) -> None:
    response = api.post("/v1/ips/lookup", **{**packed(b""), "data": damaged})
    assert (response.status_code, response.json()["code"]) == (400, "malformed" if damaged else "invalid")


@pytest.mark.parametrize("encoding", ["br", "deflate", "zstd", "gzip, gzip"])
def test_other_encodings_are_415_that_names_what_is_taken(api: APIClient, encoding: str) -> None:
    response = api.post("/v1/ips/lookup", **{**packed(ADDRESSES), "HTTP_CONTENT_ENCODING": encoding})
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_content_encoding")
    assert "gzip" in response.json()["message"]


def test_body_over_a_megabyte_is_413_over_http(api: APIClient) -> None:
    response = api.post("/v1/ips/lookup", data=b'"' + b"x" * 1_000_001 + b'"', content_type="application/json")
    assert response.status_code == 413
    assert response.json()["code"] == "too_large"

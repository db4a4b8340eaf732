"""A JSON parser with the limits that json.loads lacks. All input from the network is untrusted."""

import json
import math
import zlib
from collections.abc import Mapping
from typing import IO, Any, NoReturn

from django.conf import settings
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser

from web.errors import TooLarge, UnsupportedEncoding

MAX_DEPTH = 20
# Larger integers fit no column, no float and no integer of a client. Python would accept them and fail much later.
MIN_INTEGER, MAX_INTEGER = -(2**63), 2**64 - 1
GZIP = 16 + zlib.MAX_WBITS


class BoundedJSONParser(BaseParser):
    """Accepts a body of at most MAX_BODY_BYTES, also after decompression. Refuses NaN and infinity, integers that do
    not fit into 64 bits, text that a database cannot store, and deep nesting."""

    media_type = "application/json"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        raw = stream.read(settings.MAX_BODY_BYTES + 1)
        request = (parser_context or {}).get("request")
        encoding = request.headers.get("Content-Encoding", "").strip().lower() if request else ""
        if encoding in ("gzip", "x-gzip"):
            raw = _decompressed(raw)
        elif encoding not in ("", "identity"):
            raise UnsupportedEncoding
        if len(raw) > settings.MAX_BODY_BYTES:
            raise TooLarge
        try:
            data = json.loads(raw, parse_float=_finite, parse_int=_integer, parse_constant=_not_a_number)
        except json.JSONDecodeError as error:
            message = f"The body is not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})."
            raise ParseError(message) from None
        except (ValueError, RecursionError):
            raise ParseError("The body is not valid JSON in UTF-8.") from None
        _check(data, MAX_DEPTH)
        return data


def _decompressed(raw: bytes) -> bytes:
    """Decompresses one gzip member up to one byte beyond the limit, so that a decompression bomb costs nothing."""
    gzip = zlib.decompressobj(GZIP)
    try:
        unpacked = gzip.decompress(raw, settings.MAX_BODY_BYTES + 1)
    except zlib.error:
        raise ParseError("The body is not valid gzip, as its Content-Encoding says.") from None
    if not gzip.eof and len(unpacked) <= settings.MAX_BODY_BYTES:
        raise ParseError("The body's gzip data ends too early.")
    return unpacked


def _integer(text: str) -> int:
    # The length first, because the time of `int` grows with the square of the length.
    if len(text) > 20 or not MIN_INTEGER <= (number := int(text)) <= MAX_INTEGER:
        raise ParseError(f"The body contains an integer of {len(text)} digits that does not fit into 64 bits.")
    return number


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):  # 1e999
        raise ParseError("The body contains a number that is too large.")
    return number


def _not_a_number(text: str) -> NoReturn:
    raise ValueError


def _check(value: Any, depth: int) -> None:
    if depth == 0:
        raise ParseError(f"The body is nested deeper than {MAX_DEPTH} levels.")
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_text(key)
            _check(item, depth - 1)
    elif isinstance(value, list):
        for item in value:
            _check(item, depth - 1)


def _check_text(text: str) -> None:
    """PostgreSQL stores neither NUL nor unpaired surrogates, and JSON can represent both."""
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ParseError("The body contains a NUL or an unpaired surrogate.")

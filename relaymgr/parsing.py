"""JSON in, with the limits that json.loads lacks. Everything from the network is hostile."""

import json
import math
from collections.abc import Mapping
from typing import IO, Any, NoReturn

from django.conf import settings
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser

from relaymgr.errors import TooLarge

MAX_DEPTH = 20


class BoundedJSONParser(BaseParser):
    """A body of at most MAX_BODY_BYTES. No NaN or infinity, no text that a database cannot hold, no deep nesting."""

    media_type = "application/json"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        raw = stream.read(settings.MAX_BODY_BYTES + 1)
        if len(raw) > settings.MAX_BODY_BYTES:
            raise TooLarge
        try:
            data = json.loads(raw, parse_float=_finite, parse_constant=_not_a_number)
        except (ValueError, RecursionError):
            raise ParseError("The body is not valid JSON.") from None
        _check(data, MAX_DEPTH)
        return data


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):  # 1e999
        raise ValueError
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
    """PostgreSQL holds neither NUL nor half a surrogate pair; JSON can spell both."""
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ParseError("The body holds a NUL or an unpaired surrogate.")

"""JSON that others wrote, read strictly: what is read can be written again."""

from typing import Any

import msgspec


def read_json(content: bytes | bytearray) -> Any:
    """Raises ValueError, which repeats nothing of the content: also for NaN and infinity, for numbers that no float
    holds, for unpaired surrogates, which cannot be encoded, and for nesting without end. Only whole numbers may be of
    any size."""
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("it is not JSON") from None

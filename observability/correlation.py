"""The request and the trace that a call belongs to, from its headers. Malformed headers are ignored."""

import re
from collections.abc import Mapping

REQUEST_ID = "X-Request-ID"
TRACEPARENT = "traceparent"

_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# W3C trace context: version, trace id, parent id, flags.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def is_request_id(text: str) -> bool:
    return _REQUEST_ID.fullmatch(text) is not None


def request_id_of(headers: Mapping[str, str]) -> str:
    """The request id; empty when the header is missing or malformed."""
    text = headers.get(REQUEST_ID.lower(), "")
    return text if is_request_id(text) else ""


def trace_id_of(headers: Mapping[str, str]) -> str:
    """The trace id; empty when the call belongs to no trace."""
    found = _TRACEPARENT.fullmatch(headers.get(TRACEPARENT, ""))
    return found[1] if found else ""

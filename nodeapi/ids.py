"""Identifiers that both sides check before they use them in a path, a log line or a database query."""

import re
from typing import Annotated

from msgspec import Meta

SESSION_ID_PATTERN = r"[0-9a-f]{12}-S"
SESSION_ID_RULE = 'must be 12 lowercase hexadecimal digits and "-S"'
SessionId = Annotated[str, Meta(pattern=rf"\A{SESSION_ID_PATTERN}\Z")]

_SESSION_ID = re.compile(SESSION_ID_PATTERN)


def is_session_id(text: str) -> bool:
    return _SESSION_ID.fullmatch(text) is not None

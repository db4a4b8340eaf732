"""Grants as the core reads them (nodeapi.grants), and the refusal of one."""

from typing import Literal

from nodeapi.grants import Grant, parse_grant
from nodeapi.strict_json import InvalidDocument


class GrantRefused(Exception):
    """A grant was not taken over. `code` is one of docs/node-api.md: invalid, draining, full, session_ended."""

    def __init__(
        self, code: Literal["invalid", "draining", "full", "session_ended"], message: str, field: str = ""
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field  # "seats[2].token"; empty when it is not about a field


def read_grant(data: object) -> Grant:
    """Raises GrantRefused "invalid", which names the field."""
    try:
        return parse_grant(data)
    except InvalidDocument as error:
        raise GrantRefused("invalid", str(error), error.field) from None

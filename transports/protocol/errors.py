"""What decoding and connecting may raise. One family, so that a caller can catch it whole."""

from enum import IntEnum


class ProtocolError(Exception):
    """Base of everything this package raises on its own account."""


class DecodeError(ProtocolError):
    """The bytes are not the packet they claim to be. `reason` is the name of the drop counter."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TokenError(ProtocolError):
    """A connect token does not open."""


class UnknownKey(TokenError):
    """The token was sealed under a key this node does not hold."""


class BadToken(TokenError):
    """The token was tampered with, cut short, or is of another version."""


class Refusal(IntEnum):
    """Why a node refuses a CONNECT (PROTOCOL.md 6.4)."""

    UNSUPPORTED_VERSION = 1
    BAD_TOKEN = 2
    TOKEN_EXPIRED = 3
    WRONG_NODE = 4
    WRONG_WORKER = 5
    BAD_MAC = 6
    STALE_TIMESTAMP = 7
    SESSION_ENDED = 8
    SEAT_REVOKED = 9
    DIALECT_OFF = 10
    FULL = 11
    DRAINING = 12

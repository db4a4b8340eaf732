"""The exceptions of decoding and connecting, in one family."""

from enum import IntEnum


class ProtocolError(Exception):
    """The base class of all exceptions of the protocol."""


class DecodeError(ProtocolError):
    """The bytes are not a valid packet of their type. `reason` is the name of the drop counter."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TokenError(ProtocolError):
    """A connect token cannot be opened."""


class UnknownKey(TokenError):
    """The token was sealed under a key that this node does not have."""


class BadToken(TokenError):
    """The token was modified or truncated, or has another version."""


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


# -- ends of a player's connection ------------------------------------------------------------------

ADVICE = {
    Refusal.UNSUPPORTED_VERSION: "update the game: the relay does not support this version",
    Refusal.BAD_TOKEN: "get a new connect token",
    Refusal.TOKEN_EXPIRED: "get a new connect token",
    Refusal.WRONG_NODE: "check the relay's address, or get a new connect token: the relay may no longer have its key",
    Refusal.WRONG_WORKER: "check the port: another port of this relay serves the session",
    Refusal.BAD_MAC: "use the seat key that was issued with this connect token",
    Refusal.STALE_TIMESTAMP: "another client is connecting with the same token",
    Refusal.SESSION_ENDED: "leave: the session has ended",
    Refusal.SEAT_REVOKED: "leave: the player was removed from the session",
    Refusal.DIALECT_OFF: "use the dialect that the session admits",
    Refusal.FULL: "try again later",
    Refusal.DRAINING: "ask the manager for another relay",
}


class ConnectionFailed(ProtocolError):
    """The connection has ended. `code` is a stable name for the program, `advice` is a sentence for the log."""

    def __init__(self, code: str, advice: str) -> None:
        super().__init__(f"{code}: {advice}")
        self.code = code
        self.advice = advice


class ConnectTimeout(ConnectionFailed):
    """The relay did not answer in time, in the first connect or in a reconnect."""

    def __init__(self, seconds: float) -> None:
        super().__init__("connect_timeout", f"no answer from the relay for {seconds:g} s: check address and firewall")


class ConnectRefused(ConnectionFailed):
    """The relay refused the CONNECT; `code` is the name of the refusal in PROTOCOL.md 6.4."""


class SessionEnded(ConnectionFailed):
    """The session has ended for all players."""

    def __init__(self, text: str = "") -> None:
        super().__init__("session_ended", text or ADVICE[Refusal.SESSION_ENDED])


class SeatRevoked(ConnectionFailed):
    """This player was removed from the session."""

    def __init__(self, text: str = "") -> None:
        super().__init__("seat_revoked", text or ADVICE[Refusal.SEAT_REVOKED])


class ClosedByNode(ConnectionFailed):
    """The relay sent CLOSE; `number` is its code, and `advice` is its text."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__("closed_by_node", text or f"code {number}")
        self.number = number


class ConnectionClosed(ConnectionFailed):
    """The game used a connection after closing it."""

    def __init__(self) -> None:
        super().__init__("closed", "the game closed the connection")


class InvalidTarget(ProtocolError, ValueError):
    """The target is not a seat, or the topology of the session does not allow packets to it."""


class PayloadTooLarge(ProtocolError, ValueError):
    """The payload does not fit into one packet."""


def refusal_error(code: int, name: str) -> ConnectionFailed:
    """The exception for a REFUSED with `code`; `name` is used for codes that this version does not know."""
    if code == Refusal.SESSION_ENDED:
        return SessionEnded()
    if code == Refusal.SEAT_REVOKED:
        return SeatRevoked()
    return ConnectRefused(name, ADVICE.get(code, "the relay refused for a reason that this version does not know"))  # type: ignore[call-overload]

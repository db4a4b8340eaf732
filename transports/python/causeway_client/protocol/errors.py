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


# -- what a player's connection ends with ----------------------------------------------------------

ADVICE = {
    Refusal.UNSUPPORTED_VERSION: "update the game: the relay does not speak this version",
    Refusal.BAD_TOKEN: "get a new connect token",
    Refusal.TOKEN_EXPIRED: "get a new connect token",
    Refusal.WRONG_NODE: "check the relay's address, or get a new connect token: its key may be retired",
    Refusal.WRONG_WORKER: "check the port: the session is served on another one of this relay",
    Refusal.BAD_MAC: "use the seat key that was given out with this connect token",
    Refusal.STALE_TIMESTAMP: "another client is connecting with the same token",
    Refusal.SESSION_ENDED: "leave: the session is over",
    Refusal.SEAT_REVOKED: "leave: the player was removed from the session",
    Refusal.DIALECT_OFF: "speak the dialect that the session allows",
    Refusal.FULL: "try again later",
    Refusal.DRAINING: "ask the manager for another relay",
}


class ConnectionFailed(ProtocolError):
    """A connection is over, and not because the game closed it. `code` is a stable name to act on,
    `advice` a sentence for whoever reads the log."""

    def __init__(self, code: str, advice: str) -> None:
        super().__init__(f"{code}: {advice}")
        self.code = code
        self.advice = advice


class ConnectTimeout(ConnectionFailed):
    """The relay did not answer in time, on the first connect or on a reconnect."""

    def __init__(self, seconds: float) -> None:
        super().__init__("connect_timeout", f"no answer from the relay for {seconds:g} s: check address and firewall")


class ConnectRefused(ConnectionFailed):
    """The relay refused the CONNECT; `code` is the name of the refusal in PROTOCOL.md 6.4."""


class SessionEnded(ConnectionFailed):
    """The session is over, for everyone."""

    def __init__(self, text: str = "") -> None:
        super().__init__("session_ended", text or ADVICE[Refusal.SESSION_ENDED])


class SeatRevoked(ConnectionFailed):
    """This player was removed from the session."""

    def __init__(self, text: str = "") -> None:
        super().__init__("seat_revoked", text or ADVICE[Refusal.SEAT_REVOKED])


class ClosedByNode(ConnectionFailed):
    """The relay sent CLOSE; `number` and the advice are as it gave them."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__("closed_by_node", text or f"code {number}")
        self.number = number


class ConnectionClosed(ConnectionFailed):
    """The game used a connection after closing it."""

    def __init__(self) -> None:
        super().__init__("closed", "the connection was closed here")


class InvalidTarget(ProtocolError, ValueError):
    """Not a seat, or one that the session's topology does not let this seat reach."""


class PayloadTooLarge(ProtocolError, ValueError):
    """More bytes than one packet carries."""


def refusal_error(code: int, name: str) -> ConnectionFailed:
    """The error for a REFUSED with `code`; `name` is used for codes this version does not know."""
    if code == Refusal.SESSION_ENDED:
        return SessionEnded()
    if code == Refusal.SEAT_REVOKED:
        return SeatRevoked()
    return ConnectRefused(name, ADVICE.get(code, "refused for a reason this version does not know"))  # type: ignore[call-overload]

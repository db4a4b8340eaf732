"""Sessions as a manager grants them to a node (docs/node-api.md), with tokens that tests can compute."""

from typing import Any

SESSION_TOKEN = 3500589645
NO_LIMITS = {"packets": 0, "bytes": 0}
_FIRST_SESSION = 0x3960C873AAFD


def session_name(number: int = 0) -> str:
    return f"{_FIRST_SESSION + number:012x}-S"


def session_token(number: int = 0) -> int:
    return SESSION_TOKEN + number


def user_token(seat: int) -> int:
    """Above 2^31, as half of all tokens are; seat 1 has that of the compatibility standard's worked example."""
    return 4_000_000_001 + 256 * (seat - 1)


def grant_document(seats: int = 3, *, expires_at: float, number: int = 0, **changes: Any) -> dict[str, Any]:
    """The grant of session `number`. `limits` are those of each seat, and of the session unless `session_limits` are
    given; `revoked` holds seats, `tokens` the seats' own; `direct_mode` is that of all seats but those in
    `direct_modes`, by number; `offers` are those of the seats, by number; other names replace the document's fields."""
    limits = changes.pop("limits", NO_LIMITS)
    session_limits = changes.pop("session_limits", limits)
    revoked = changes.pop("revoked", ())
    direct_modes = changes.pop("direct_modes", {})
    direct_mode = changes.pop("direct_mode", "relay_only")
    offers = changes.pop("offers", {})
    tokens = changes.pop("tokens", None) or [user_token(seat) for seat in range(seats)]
    return {
        "session": session_name(number),
        "revision": 1,
        "worker": 0,
        "token": session_token(number),
        "topology": "host",
        "dialects": ["edgegap", "native"],
        "idle_timeout": 300,
        "expires_at": expires_at,
        "limits": dict(session_limits),
        "direct_grace": 0,
        "role": "active",
        "epoch": 0,
        "seats": [
            {
                "seat": seat,
                "token": token,
                "revoked": seat in revoked,
                "limits": dict(limits),
                "direct_mode": direct_modes.get(seat, direct_mode),
                "offer": offers.get(seat),
            }
            for seat, token in enumerate(tokens)
        ],
        **changes,
    }

"""The errors that the services of sessions raise."""

from web.errors import ApiError, Conflict, NotFound, Unavailable


class SessionUnknown(NotFound):
    code, message = "session_unknown", "There is no such session."


class NotPlaced(NotFound):
    code, message = "not_placed", "The session has not been placed yet. Repeat the request later."


class TokenUnknown(NotFound):
    code, message = "token_unknown", "No user of the session has this token."


class SeatUnknown(NotFound):
    code, message = "seat_unknown", "The session has no user with this seat number."


class SessionNotLive(Conflict):
    code, message = "session_not_live", "The session is not ready for users."


class SessionFull(Conflict):
    code, message = "session_full", "The session has used all its seat numbers."


class NodeFull(Conflict):
    code, message = "node_full", "The node of the session has no free seat."


class RelayUnreachable(Conflict):
    code, message = "relay_unreachable", "The node of the session has no address of the family that the player needs."


class SessionQuota(ApiError):
    status, code = 429, "session_quota"
    message = "The tenant has reached its maximum number of live sessions. Delete some."


class CreationQuota(ApiError):
    status, code = 429, "creation_quota"
    message = "The tenant has reached its maximum number of creations per minute. Wait, or have the limit raised."

    def __init__(self, *, limit: int, retry_after: int) -> None:
        super().__init__(details={"sessions_per_minute": limit})
        self.retry_after = retry_after


class NoRelay(Unavailable):
    code, message = "no_relay", "No relay node took the session."


class NodeSilent(Unavailable):
    code = "node_unreachable"
    message = "The relay node did not confirm. The request is recorded and will be completed; it is safe to repeat it."


class KeyInProgress(Conflict):
    code, message = "idempotency_in_progress", "The first request with this Idempotency-Key is still being processed."


class KeyMismatch(ApiError):
    status, code = 422, "idempotency_mismatch"
    message = "This Idempotency-Key was used with another body."

"""The errors of the REST calls. They need no HTTP library, so a game can catch them without the extra `rest`."""

from typing import Any

ADVICE = {  # by the error's code, otherwise by its status
    "unreachable": "check the URL, and that the manager runs and can be reached from here",
    "unauthorized": "check the key: it may be mistyped, expired or revoked",
    "scope_missing": "use a key with the scope that this call needs",
    "throttled": "call less often, or wait as Retry-After says",
    "no_relay": "wait for a relay with free capacity, or add one",
    400: "correct the fields named here and send the request again",
    403: "use a key with the required permission",
    404: "check the id: the object does not exist, or has ended",
    409: "read the current state, then decide again",
    413: "send less data per request",
    429: "wait as Retry-After says",
    500: "report the error with the log of the manager",
    503: "try again in a moment",
}


class ManagerError(Exception):
    """The manager or the matchmaker answered with an error.

    `status` is that of HTTP, `code` is stable, and `details` is as in the API's answer. `request` is the method and the
    URL without secrets, `advice` is what to do next, and `retry_after` is the number of seconds after which the server
    accepts the request again. The message contains all of these."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        details: Any = None,
        *,
        request: str = "",
        retry_after: float | None = None,
    ) -> None:
        self.status = status
        self.code = code
        self.details = details
        self.request = request
        self.retry_after = retry_after
        self.advice = ADVICE.get(code) or ADVICE.get(status) or ADVICE[500 if status >= 500 else 400]
        shown = f" [{request}]" if request else ""
        super().__init__(f"{status} {code}: {message}{_problems(details)}{shown} Next: {self.advice}.")

    @property
    def is_temporary(self) -> bool:
        """The request had no effect, and the server may accept it later."""
        return self.status == 429 or (self.status == 503 and self.retry_after is not None)


class ManagerUnreachable(ManagerError):
    """No answer arrived: status 0, code `unreachable`. It is unknown whether the request took effect."""

    def __init__(self, reason: str, *, request: str = "") -> None:
        super().__init__(0, "unreachable", reason, request=request)


class MatchNotFound(Exception):
    """The ticket was cancelled. `reason` is `expired` if no suitable players were found in time."""

    def __init__(self, reason: str) -> None:
        text = "expired: no suitable players were found in time." if reason == "expired" else f"{reason}: no match."
        super().__init__(f"{text} Next: search again, or with a profile that has fewer constraints.")
        self.reason = reason


def _problems(details: Any) -> str:
    """The fields at fault, from the details of a validation error: {"users[0].ip": [{"message", "code"}]}."""
    if not isinstance(details, dict):
        return ""
    found = [
        f" {field}: {problem['message']}"
        for field, problems in details.items()
        if isinstance(problems, list)
        for problem in problems
        if isinstance(problem, dict) and "message" in problem
    ]
    return "".join(found[:10])

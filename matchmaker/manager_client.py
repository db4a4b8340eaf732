"""The manager's REST API, as far as a matchmaker needs it. The only module here that speaks HTTP.

With a service key the matchmaker acts for the studio that each call names; with a studio's own key for that one alone.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx

from observability import tracing

Json = dict[str, Any]
# The manager tries several nodes for a session, each with a budget of its own.
TIMEOUT = httpx.Timeout(4.0, connect=1.0)


class ManagerUnreachable(Exception):
    """No answer, or none that says what happened: whether the call took effect is unknown. Asking again may tell."""


class ManagerRefused(Exception):
    """The manager said no, and nothing was done. `code` is its stable word."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"{status} {code}")
        self.status, self.code = status, code


class Manager:
    """Safe to use from several threads."""

    def __init__(self, url: str, key: str) -> None:
        headers = {"Authorization": f"token {key}"}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT, trust_env=False)
        tracing.trace_client(self._http)

    def session_create(self, tenant: str, body: Mapping[str, Any], idempotency_key: str) -> Json:
        """The session, ready; the same one whenever the key is the same."""
        headers = {"Idempotency-Key": idempotency_key}
        return self._call("POST", "/v1/relays/sessions", tenant, json=dict(body), headers=headers)

    def session_get(self, tenant: str, session_id: str) -> Json:
        return self._call("GET", _session_path(session_id), tenant)

    def session_delete(self, tenant: str, session_id: str) -> None:
        self._call("DELETE", _session_path(session_id), tenant)

    def user_authorize(self, tenant: str, session_id: str, user: Mapping[str, Any]) -> Json:
        """The session with its one `session_user`: a player_id that is there already gets its seat again."""
        body = {"session_id": session_id, **{("user_ip" if k == "ip" else k): v for k, v in user.items()}}
        return self._call("POST", "/v1/relays/sessions:authorize-user", tenant, json=body)

    def user_revoke(self, tenant: str, session_id: str, token: int) -> None:
        body = {"session_id": session_id, "authorization_token": token}
        self._call("POST", "/v1/relays/sessions:revoke-user", tenant, json=body)

    def locations(self) -> list[Json]:
        return list(self._call("GET", "/v1/locations")["locations"])

    def beacons(self) -> list[Json]:
        return list(self._call("GET", "/v1/locations/beacons")["locations"])

    def close(self) -> None:
        self._http.close()

    def _call(
        self, method: str, path: str, tenant: str = "", headers: dict[str, str] | None = None, **more: Any
    ) -> Json:
        named = {"Causeway-Tenant": tenant} if tenant else {}
        try:
            response = self._http.request(method, path, headers={**named, **(headers or {})}, **more)
            body = response.json() if response.content else {}
        except (httpx.HTTPError, ValueError) as error:
            # Without the error's text, which names the request.
            raise ManagerUnreachable(f"{method} {path}: {type(error).__name__}") from None
        if response.is_success and isinstance(body, dict):
            return body
        code = str(body.get("code", "")) if isinstance(body, dict) else ""
        if _is_final(response.status_code, code):
            raise ManagerRefused(response.status_code, code)
        raise ManagerUnreachable(f"{method} {path}: {response.status_code} {code}")


def _is_final(status: int, code: str) -> bool:
    """Whether an error says that nothing was done: a 4xx but "later" and "still at it"; of the 5xx only no_relay."""
    return code == "no_relay" or (400 <= status < 500 and status != 429 and code != "idempotency_in_progress")


def _session_path(session_id: str) -> str:
    return f"/v1/relays/sessions/{quote(session_id, safe='')}"

"""A client of the part of the manager's REST API that the matchmaker uses.

With a service key the matchmaker acts for the tenant that each call names; with a tenant's key for this tenant only.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx

from observability import tracing

Json = dict[str, Any]
# The manager tries several nodes for a session, each with a time-out of its own.
TIMEOUT = httpx.Timeout(4.0, connect=1.0)


class ManagerUnreachable(Exception):
    """There was no response, or none that reports the outcome: it is unknown whether the call took effect."""


class ManagerRefused(Exception):
    """The manager refused the call, and nothing was changed. `code`: the stable code of its error."""

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
        """The session, ready for players. The same key returns the same session."""
        headers = {"Idempotency-Key": idempotency_key}
        return self._call("POST", "/v1/relays/sessions", tenant, json=dict(body), headers=headers)

    def session_get(self, tenant: str, session_id: str) -> Json:
        return self._call("GET", _session_path(session_id), tenant)

    def session_delete(self, tenant: str, session_id: str) -> None:
        self._call("DELETE", _session_path(session_id), tenant)

    def user_authorize(self, tenant: str, session_id: str, user: Mapping[str, Any]) -> Json:
        """The session with this `session_user`. A player_id that has a seat gets the same seat again."""
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
            # Without the text of the error, which contains the URL.
            raise ManagerUnreachable(f"{method} {path}: {type(error).__name__}") from None
        if response.is_success and isinstance(body, dict):
            return body
        code = str(body.get("code", "")) if isinstance(body, dict) else ""
        if _is_final(response.status_code, code):
            raise ManagerRefused(response.status_code, code)
        raise ManagerUnreachable(f"{method} {path}: {response.status_code} {code}")


def _is_final(status: int, code: str) -> bool:
    """Whether the error means that nothing was changed: every 4xx except throttling and a request in progress, and
    no_relay."""
    return code == "no_relay" or (400 <= status < 500 and status != 429 and code != "idempotency_in_progress")


def _session_path(session_id: str) -> str:
    return f"/v1/relays/sessions/{quote(session_id, safe='')}"

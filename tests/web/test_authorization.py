"""A caller needs one of the scopes that a permission names, by the method of the request."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from rest_framework.request import Request

from web.authorization import Scope, ScopeMissing, ScopePermission


class Sessions(ScopePermission):
    reading = frozenset({Scope.RELAY, Scope.READ})
    writing = frozenset({Scope.RELAY})


def request(method: str, *scopes: str) -> Request:
    return cast(Request, SimpleNamespace(method=method, auth=SimpleNamespace(scopes=frozenset(scopes))))


@pytest.mark.parametrize(("method", "scope"), [("GET", "read"), ("GET", "relay"), ("POST", "relay")])
def test_one_of_the_scopes_is_sufficient(method: str, scope: str) -> None:
    assert Sessions().has_permission(request(method, scope, "matchmaker"), None)


@pytest.mark.parametrize(("method", "scope"), [("POST", "read"), ("GET", "matchmaker")])
def test_without_one_of_the_scopes_the_error_names_them(method: str, scope: str) -> None:
    with pytest.raises(ScopeMissing) as refused:
        Sessions().has_permission(request(method, scope), None)
    assert "relay" in refused.value.details["scopes"]


def test_a_request_without_a_key_is_left_to_drf() -> None:
    anonymous: Any = SimpleNamespace(method="GET", auth=None)
    assert not Sessions().has_permission(anonymous, None)

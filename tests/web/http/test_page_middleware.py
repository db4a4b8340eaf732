"""Cookies are read for pages alone."""

from typing import Any

import pytest
from django.test import Client


@pytest.mark.parametrize(("path", "reads"), [("/admin/", True), ("/v1/ip", False), ("/matchmaker/monitor", False)])
def test_a_request_to_an_api_has_no_session_of_a_browser(admin_user: Any, path: str, reads: bool) -> None:
    browser = Client()
    browser.force_login(admin_user)
    request = browser.get(path).wsgi_request
    assert hasattr(request, "session") == hasattr(request, "_messages") == reads
    assert (getattr(request, "user", None) == admin_user) == reads

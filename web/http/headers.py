"""Headers that every response has in addition to Django's own."""

from collections.abc import Callable

from csp.constants import HEADER
from csp.middleware import CSPMiddleware
from csp.utils import build_policy
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

API_PATHS = ("/v1/", "/matchmaker/")
NO_DEVICES = "camera=(), geolocation=(), microphone=(), payment=(), usb=()"


def security_headers(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Middleware. Forbids caches to store responses of the API, which may contain tokens, and denies pages access to
    devices."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response.headers.setdefault("Permissions-Policy", NO_DEVICES)
        if request.path_info.startswith(API_PATHS):
            response.headers.setdefault("Cache-Control", "no-store")
        return response

    return middleware


class ContentSecurityPolicy(CSPMiddleware):
    """django-csp's middleware, but the policy from the settings is built once, not for each response. No page has a
    nonce."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        super().__init__(get_response)
        self._policy = build_policy()

    def process_request(self, request: HttpRequest) -> None:
        pass

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        if any(name.startswith("_csp_") for name in vars(response)):  # set by a decorator of its view
            return super().process_response(request, response)
        response.headers.setdefault(HEADER, self._policy)
        return response

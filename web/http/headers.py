"""Headers that every answer carries on top of Django's own."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

API_PATHS = ("/v1/", "/matchmaker/")
NO_DEVICES = "camera=(), geolocation=(), microphone=(), payment=(), usb=()"


def security_headers(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Middleware: no answer of the API is kept by anything on the way (it may hold tokens), and pages get no device."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response.headers.setdefault("Permissions-Policy", NO_DEVICES)
        if request.path_info.startswith(API_PATHS):
            response.headers.setdefault("Cache-Control", "no-store")
        return response

    return middleware

"""Django's middleware for cookies, which pages have: sessions, logins, messages, and the protection of forms.

A request to an API shows its key in a header. It passes these by: no cookie says anything about it, and none of their
work is done for it.
"""

from typing import Any

from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.messages.middleware import MessageMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.http import HttpRequest
from django.middleware.csrf import CsrfViewMiddleware
from django.utils.deprecation import MiddlewareMixin

from .headers import API_PATHS


class _OfPages(MiddlewareMixin):
    async_capable = False

    def __call__(self, request: HttpRequest) -> Any:
        return self.get_response(request) if request.path_info.startswith(API_PATHS) else super().__call__(request)


class PageSessionMiddleware(_OfPages, SessionMiddleware):
    pass


class PageCsrfMiddleware(_OfPages, CsrfViewMiddleware):
    pass


class PageAuthenticationMiddleware(_OfPages, AuthenticationMiddleware):
    pass


class PageMessageMiddleware(_OfPages, MessageMiddleware):
    pass

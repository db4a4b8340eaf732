"""Under /v1/. A colon may come percent-encoded (EDGEGAP.md R12): Django decodes paths before it matches them."""

from django.urls import path

from .node_grants import NodeGrantsApi
from .paths import SessionPathsApi
from .placement import SessionPlacementApi
from .seats import UserAuthorizeApi, UserRevokeApi
from .sessions import SessionApi, SessionsApi

urlpatterns = [
    path("relays/sessions", SessionsApi.as_view()),
    path("relays/sessions:authorize-user", UserAuthorizeApi.as_view()),
    path("relays/sessions:revoke-user", UserRevokeApi.as_view()),
    path("relays/sessions/<str:session_id>", SessionApi.as_view()),
    path("relays/sessions/<str:session_id>/placement", SessionPlacementApi.as_view()),
    path("relays/sessions/<str:session_id>/paths", SessionPathsApi.as_view()),
    path("nodes/self/grants", NodeGrantsApi.as_view()),
]

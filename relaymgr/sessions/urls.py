"""Under /v1/. A colon may come percent-encoded (EDGEGAP.md R12): Django decodes paths before it matches them."""

from django.urls import path

from . import apis

urlpatterns = [
    path("relays/sessions", apis.SessionsApi.as_view()),
    path("relays/sessions:authorize-user", apis.UserAuthorizeApi.as_view()),
    path("relays/sessions:revoke-user", apis.UserRevokeApi.as_view()),
    path("relays/sessions/<str:session_id>", apis.SessionApi.as_view()),
    path("relays/sessions/<str:session_id>/placement", apis.SessionPlacementApi.as_view()),
    path("nodes/self/grants", apis.NodeGrantsApi.as_view()),
]

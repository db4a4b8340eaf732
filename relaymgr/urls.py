"""Routes. No trailing slashes, and no redirects in the API, because Edgegap's clients concatenate URLs (EDGEGAP.md
R13)."""

from csp.constants import UNSAFE_INLINE
from csp.decorators import csp_update
from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularJSONAPIView, SpectacularSwaggerSplitView

from relaymgr.monitor import MonitorApi
from relaymgr.operations.metrics import MetricsApi
from relaymgr.operations.player_apis import PlayerEraseApi, PlayerExportApi

# Swagger UI uses inline styles.
swagger = csp_update({"style-src": UNSAFE_INLINE})

urlpatterns = [
    path("v1/", include("relaymgr.tenants.urls")),
    path("v1/", include("relaymgr.nodes.urls")),
    path("v1/", include("relaymgr.telemetry.urls")),
    path("v1/", include("relaymgr.sessions.apis.urls")),
    path("v1/players:export", PlayerExportApi.as_view()),
    path("v1/players:erase", PlayerEraseApi.as_view()),
    path("v1/openapi.json", SpectacularJSONAPIView.as_view(), name="openapi"),
    path("docs", swagger(SpectacularSwaggerSplitView.as_view(url_name="openapi")), name="docs"),
    path("matchmaker/", include("matchmaker.urls")),
    path("", RedirectView.as_view(pattern_name="docs")),
    path("monitor", MonitorApi.as_view(), name="monitor"),
    path("metrics", MetricsApi.as_view(), name="metrics"),
    path("admin/", admin.site.urls),
]

handler400 = "web.errors.bad_request"
handler403 = "web.errors.permission_denied"
handler404 = "web.errors.not_found"
handler500 = "web.errors.server_error"

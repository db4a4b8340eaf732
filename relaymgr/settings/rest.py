"""The REST API: Django REST framework, the OpenAPI document, and calls from browser pages of other origins."""

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["relaymgr.authentication.KeyAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["relaymgr.authentication.MayUseRelays"],
    "DEFAULT_THROTTLE_CLASSES": ["web.http.throttling.KeyThrottle", "web.http.throttling.UnauthenticatedThrottle"],
    "DEFAULT_PARSER_CLASSES": ["web.http.parsers.BoundedJSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_SCHEMA_CLASS": "web.openapi.Schema",
    "EXCEPTION_HANDLER": "web.errors.exception_handler",
    "UNAUTHENTICATED_USER": None,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Causeway",
    "DESCRIPTION": "Relay sessions for multiplayer games. Compatible with Edgegap's relay API, version 1.",
    "VERSION": "0.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "DEFAULT_GENERATOR_CLASS": "web.openapi.Generator",
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "web.openapi.describe_numbers",
        "web.openapi.describe_warnings",
    ],
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SERVE_AUTHENTICATION": [],
    "SCHEMA_PATH_PREFIX": "/v1",  # groups by what follows it
    "SWAGGER_UI_SETTINGS": {"deepLinking": True, "defaultModelsExpandDepth": 0},
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    "ENUM_NAME_OVERRIDES": {
        "TicketStatusEnum": "matchmaker.models.Status",
        "HealthEnum": ["HEALTHY", "UNHEALTHY"],
        "PathReasonEnum": "nodeapi.telemetry.PATH_REASONS",
    },
}

# Which origins are allowed: relaymgr/tenants/cors.py and matchmaker/cors.py. No cookies: a key is sent in a header.
CORS_URLS_REGEX = r"^/(v1|matchmaker)/"
CORS_ALLOW_METHODS = ("GET", "POST", "PATCH", "DELETE", "OPTIONS")
CORS_ALLOW_HEADERS = ("accept", "authorization", "content-type", "idempotency-key", "last-event-id", "x-request-id")
CORS_EXPOSE_HEADERS = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset", "Retry-After", "X-Request-ID")
CORS_PREFLIGHT_MAX_AGE = 600  # seconds

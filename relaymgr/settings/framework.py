"""Django itself: applications, middleware, templates, static files, language. Nothing here is read from a variable."""

from csp.constants import NONE, SELF

from relaymgr.settings.web import STATIC_ROOT

ROOT_URLCONF = "relaymgr.urls"
ASGI_APPLICATION = "relaymgr.asgi.application"
INSTALLED_APPS = [
    "relaymgr.apps.RelaymgrConfig",  # before the admin, so that our templates take precedence
    "relaymgr.operations.apps.AdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_structlog",
    "corsheaders",
    "web.audit",
    "relaymgr.tenants",
    "relaymgr.nodes",
    "relaymgr.telemetry",
    "relaymgr.sessions",
    "matchmaker",
    "relaymgr.operations.apps.OperationsConfig",  # last: it creates the roles when all permissions exist
]
MIDDLEWARE = [
    "web.http.request_middleware.RequestMiddleware",
    "corsheaders.middleware.CorsMiddleware",  # before any middleware that can respond
    "django.middleware.security.SecurityMiddleware",
    "web.http.headers.ContentSecurityPolicy",
    "web.http.headers.security_headers",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "web.http.input_warnings.InputWarningsMiddleware",
    "web.http.throttling.rate_limit_headers",
    "web.http.page_middleware.PageSessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "web.http.page_middleware.PageCsrfMiddleware",
    "web.http.page_middleware.PageAuthenticationMiddleware",
    "web.http.page_middleware.PageMessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "OPTIONS": {
            "loaders": [("django.template.loaders.cached.Loader", ["web.admin.text_isolation.Loader"])],
            "builtins": ["web.admin.text_isolation"],
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("MinimumLengthValidator", "CommonPasswordValidator", "NumericPasswordValidator")
] + [{"NAME": "relaymgr.operations.console.sign_in_audit.PasswordAudit"}]

WHITENOISE_USE_FINDERS = STATIC_ROOT is None
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "web.http.root_path.HashedStorage" if STATIC_ROOT else "web.http.root_path.PlainStorage"
    },
}

TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False
FORMAT_MODULE_PATH = ["web.admin.formats"]
LANGUAGE_CODE = "en-us"

X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
        "base-uri": [NONE],
    }
}
# Never redirect: clients concatenate URLs and drop the body of a redirected POST (EDGEGAP.md R13).
APPEND_SLASH = False

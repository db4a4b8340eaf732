from django.apps import AppConfig
from django.contrib.admin import apps as admin_apps


class OperationsConfig(AppConfig):
    """What operators work with: the admin's front page, `relayctl`, `doctor`. Looks at all apps; none looks at it."""

    name = "relaymgr.operations"
    label = "operations"


class AdminConfig(admin_apps.AdminConfig):
    """Django's admin, with our front page."""

    default_site = "relaymgr.operations.site.OperationsSite"

from django.apps import AppConfig, apps
from django.contrib.admin import apps as admin_apps
from django.db.models.signals import post_migrate


class OperationsConfig(AppConfig):
    """What operators work with: the admin's front page, `relayctl`, `doctor`. Looks at all apps; none looks at it."""

    name = "relaymgr.operations"
    label = "operations"

    def ready(self) -> None:
        from relaymgr.operations.console import sign_in_audit
        from relaymgr.operations.roles import roles_make

        sign_in_audit.connect()
        post_migrate.connect(roles_make, sender=self)
        apps.get_app_config("auth").verbose_name = "People and roles"


class AdminConfig(admin_apps.AdminConfig):
    """Django's admin, with our front page."""

    default_site = "relaymgr.operations.console.site.OperationsSite"

import gc

from django.apps import AppConfig, apps
from django.contrib.admin import apps as admin_apps
from django.db.models.signals import post_migrate


class OperationsConfig(AppConfig):
    """The tools of operators: the console, `relayctl` and `doctor`. It uses all other apps; none of them uses it."""

    name = "relaymgr.operations"
    label = "operations"

    def ready(self) -> None:
        from relaymgr.operations.console import sign_in_audit
        from relaymgr.operations.roles import roles_make

        sign_in_audit.connect()
        post_migrate.connect(roles_make, sender=self)
        apps.get_app_config("auth").verbose_name = "Users and roles"
        gc.freeze()  # relaymgr/settings/environment.py has turned it off; this is the last app
        gc.enable()


class AdminConfig(admin_apps.AdminConfig):
    """Django's admin, with the console's front page."""

    default_site = "relaymgr.operations.console.site.OperationsSite"

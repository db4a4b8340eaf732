from django.apps import AppConfig


class TenantsConfig(AppConfig):
    name = "relaymgr.tenants"
    label = "tenants"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from relaymgr.tenants import cors  # noqa: F401 - connects itself

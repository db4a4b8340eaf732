from django.apps import AppConfig


class NodesConfig(AppConfig):
    name = "relaymgr.nodes"
    label = "nodes"
    verbose_name = "Fleet"
    default_auto_field = "django.db.models.BigAutoField"

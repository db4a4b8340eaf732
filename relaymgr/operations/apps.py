from django.apps import AppConfig


class OperationsConfig(AppConfig):
    """What operators work with: the admin's front page, `relayctl`, `doctor`. Looks at all apps; none looks at it."""

    name = "relaymgr.operations"
    label = "operations"

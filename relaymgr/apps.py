from django.apps import AppConfig


class RelaymgrConfig(AppConfig):
    """The project itself, so that its system checks and receivers are found."""

    name = "relaymgr"

    def ready(self) -> None:
        from relaymgr import checks  # noqa: F401

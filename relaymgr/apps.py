from django.apps import AppConfig


class RelaymgrConfig(AppConfig):
    """The project itself as an application, so that Django finds its system checks and templates."""

    name = "relaymgr"

    def ready(self) -> None:
        from relaymgr import checks  # noqa: F401 - registers system checks
        from relaymgr.task_queue import metrics  # noqa: F401 - receives Celery's signals

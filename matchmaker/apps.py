from django.apps import AppConfig


class MatchmakerConfig(AppConfig):
    name = "matchmaker"
    label = "matchmaker"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from matchmaker import cors  # noqa: F401 - connects itself

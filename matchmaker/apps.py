from django.apps import AppConfig


class MatchmakerConfig(AppConfig):
    name = "matchmaker"
    label = "matchmaker"
    default_auto_field = "django.db.models.BigAutoField"

from django.apps import AppConfig


class SessionsConfig(AppConfig):
    name = "relaymgr.sessions"
    label = "relay_sessions"  # django.contrib.sessions has "sessions"
    default_auto_field = "django.db.models.BigAutoField"
    verbose_name = "Sessions"

    def ready(self) -> None:
        from relaymgr.telemetry.granted import granted_by

        from .selectors import seats_granted

        granted_by(seats_granted)

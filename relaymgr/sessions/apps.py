from django.apps import AppConfig


class SessionsConfig(AppConfig):
    name = "relaymgr.sessions"
    label = "relay_sessions"  # django.contrib.sessions has "sessions"
    default_auto_field = "django.db.models.BigAutoField"
    verbose_name = "Sessions"

from django.apps import AppConfig


class MatchmakerConfig(AppConfig):
    name = "matchmaker"
    label = "matchmaker"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from matchmaker import cors, diagnostics, player_data  # noqa: F401 - cors connects itself
        from web.diagnostics import application_checks
        from web.player_data import stores

        stores.append(player_data)
        application_checks["matchmaker"] = diagnostics.check

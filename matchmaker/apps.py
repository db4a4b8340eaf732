from django.apps import AppConfig


class MatchmakerConfig(AppConfig):
    name = "matchmaker"
    label = "matchmaker"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from matchmaker import cors, player_data  # noqa: F401 - cors connects itself
        from web.player_data import stores

        stores.append(player_data)

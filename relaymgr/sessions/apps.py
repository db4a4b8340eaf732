from django.apps import AppConfig


class SessionsConfig(AppConfig):
    name = "relaymgr.sessions"
    label = "relay_sessions"  # django.contrib.sessions has "sessions"
    default_auto_field = "django.db.models.BigAutoField"
    verbose_name = "Sessions"

    def ready(self) -> None:
        from relaymgr.task_queue.enqueue import enqueue
        from relaymgr.telemetry.probing.granted_seats import granted_by
        from relaymgr.telemetry.signals import events_stored, paths_changed

        from . import tasks
        from .direct_paths.timeline import path_events_store
        from .selectors import seats_granted

        granted_by(seats_granted)
        events_stored.connect(lambda **kwargs: enqueue(tasks.events_apply), weak=False, dispatch_uid="events_apply")
        paths_changed.connect(
            lambda changes, **kwargs: path_events_store(changes), weak=False, dispatch_uid="path_events_store"
        )

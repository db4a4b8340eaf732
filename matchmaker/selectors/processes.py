"""The processes of the matchmaker."""

from datetime import timedelta

from django.utils import timezone

from web.admin.age import CLOCKS_AGREE_S

from ..models import Process

ALIVE_FOR = 10.0  # seconds a process counts as running after it was last seen


def processes_alive() -> list[Process]:
    now = timezone.now()
    latest = now + timedelta(seconds=CLOCKS_AGREE_S)  # one from the future is of before the clock was stepped back
    return list(Process.objects.filter(seen_at__range=(now - timedelta(seconds=ALIVE_FOR), latest)))

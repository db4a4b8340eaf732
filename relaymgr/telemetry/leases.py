"""Mutual exclusion on every database: a process holds a lease if its conditional UPDATE changes the row.

A lease expires, so that a worker that dies blocks others for at most `seconds`. A task that may take longer must
tolerate a second run.
"""

import contextlib
import uuid
from collections.abc import Collection, Iterator
from datetime import datetime, timedelta

from django.db.models import Q
from django.utils import timezone

from relaymgr.telemetry.models import Lease

LONGEST = timedelta(minutes=2)


def lease_take(*, name: str, seconds: float) -> str | None:
    """The owner's token for `lease_release`; None if another process holds the lease."""
    now, owner = timezone.now(), uuid.uuid4().hex
    # A lease that lasts longer than any is taken for was taken before the clock was stepped back.
    free = Lease.objects.filter(Q(until__lte=now) | Q(until__gt=now + LONGEST), name=name)
    mine = {"owner": owner, "until": now + timedelta(seconds=seconds)}
    if free.update(**mine):
        return owner
    if Lease.objects.filter(name=name).exists():
        return None
    Lease.objects.bulk_create([Lease(name=name, until=now)], ignore_conflicts=True)
    return owner if free.update(**mine) else None


def lease_release(*, name: str, owner: str) -> bool:
    """False: the lease had expired, and another process took it."""
    return Lease.objects.filter(name=name, owner=owner).update(owner="", until=timezone.now()) == 1


@contextlib.contextmanager
def lease_held(name: str, seconds: float) -> Iterator[bool]:
    """`with lease_held("probe", 10) as held:` `held` is False if another process holds the lease."""
    owner = lease_take(name=name, seconds=seconds)
    try:
        yield owner is not None
    finally:
        if owner is not None:
            lease_release(name=name, owner=owner)


def lease_until(*, name: str) -> datetime | None:
    """When the lease ends or was given back; None: it was never taken."""
    return Lease.objects.filter(name=name).values_list("until", flat=True).first()


# A mark is a row by which one process shows another that it ran.


def mark_leave(*, name: str) -> None:
    Lease.objects.bulk_create([Lease(name=name, until=timezone.now())], ignore_conflicts=True)


def marks_take(*, names: Collection[str]) -> list[str]:
    """Those of the marks that were left, and deletes them."""
    found = list(Lease.objects.filter(name__in=names).values_list("name", flat=True))
    Lease.objects.filter(name__in=found).delete()
    return found


def marks_prune(*, prefix: str, older_than: timedelta) -> None:
    Lease.objects.filter(name__startswith=prefix, until__lt=timezone.now() - older_than).delete()

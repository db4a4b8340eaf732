"""A circuit breaker for each endpoint: one that keeps failing is called rarely, and affects its own tenant only.

An endpoint is one tenant's host (scheme, name and port of a URL). After `FAILURES_TO_OPEN` consecutive failures its
circuit is open: nothing is sent to it until `retry_at`. Then one delivery is the trial. Success closes the circuit,
failure opens it for twice as long. The state is a row, which all workers share and the console shows.
"""

import random
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from django.db.models import Exists, F, OuterRef

from ..models import WebhookEndpoint

FAILURES_TO_OPEN = 5
FIRST_PAUSE_S, LONGEST_PAUSE_S = 15.0, 300.0
KEPT_FOR = timedelta(days=1)  # after its last failure or recovery


def endpoint_host(url: str) -> str:
    """The part of a URL that a circuit belongs to: `https://hooks.example.com:8443`."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower()[: WebhookEndpoint.HOST_LENGTH]


def circuit_is_open(now: datetime) -> Exists:
    """A condition for deliveries: the circuit of their endpoint is open."""
    rows = WebhookEndpoint.objects.filter(tenant=OuterRef("tenant"), host=OuterRef("host"), retry_at__gt=now)
    return Exists(rows)


def circuit_succeeded(*, tenant_id: int, host: str, now: datetime) -> None:
    troubled = WebhookEndpoint.objects.filter(tenant=tenant_id, host=host, failures__gt=0)
    troubled.update(failures=0, retry_at=None, opened_at=None, changed_at=now)


def circuit_failed(*, tenant_id: int, host: str, error: str, now: datetime) -> None:
    """Counts a consecutive failure, which may open the circuit."""
    row = WebhookEndpoint.objects.filter(tenant=tenant_id, host=host)
    counted = {"failures": F("failures") + 1, "last_error": error, "changed_at": now}
    if not row.update(**counted):
        new = WebhookEndpoint(tenant_id=tenant_id, host=host, changed_at=now)
        WebhookEndpoint.objects.bulk_create([new], ignore_conflicts=True)
        row.update(**counted)
    endpoint = row.get()
    if endpoint.failures >= FAILURES_TO_OPEN:
        opened_at = endpoint.opened_at or now
        row.update(retry_at=now + _pause(endpoint.failures), opened_at=opened_at)


def circuit_begin_trial(endpoint: WebhookEndpoint, now: datetime, until: datetime) -> bool:
    """Whether this worker may send the trial delivery of an open circuit. After `until` another worker may."""
    unchanged = WebhookEndpoint.objects.filter(pk=endpoint.pk, retry_at=endpoint.retry_at, retry_at__lte=now)
    return unchanged.update(retry_at=until) == 1


def circuit_close(*, endpoint: WebhookEndpoint, now: datetime) -> bool:
    """Allows deliveries again at once. False: the circuit was not open."""
    return (
        WebhookEndpoint.objects.filter(pk=endpoint.pk, retry_at__isnull=False).update(
            failures=0, retry_at=None, opened_at=None, changed_at=now
        )
        == 1
    )


def circuits_prune(now: datetime) -> int:
    return WebhookEndpoint.objects.filter(changed_at__lt=now - KEPT_FOR).delete()[0]


def _pause(failures: int) -> timedelta:
    """Half of the delay is random, so that endpoints of one host are not all tried at the same moment."""
    longest = min(FIRST_PAUSE_S * 2 ** min(failures - FAILURES_TO_OPEN, 20), LONGEST_PAUSE_S)
    return timedelta(seconds=longest * random.uniform(0.5, 1.0))  # noqa: S311 - not a secret

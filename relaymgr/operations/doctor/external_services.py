"""What else has to work: the web server, the matchmaker, webhooks, and room on the disk."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import httpx
from django.apps import apps
from django.conf import settings
from django.db.models import Max
from django.utils import timezone

from relaymgr.monitor import installation_id
from relaymgr.sessions.models import WebhookDelivery, WebhookEndpoint
from relaymgr.sessions.webhooks.circuits import circuit_is_open
from relaymgr.tenants.models import ApiKey
from web.admin.age import age_s
from web.authorization import Scope

from .findings import Finding, Of

ANSWER_WITHIN_S = 3.0
NODES_HEARD_WITHIN = timedelta(seconds=90)  # a heartbeat each 5 s, noted once a minute
ALIVE_WITHIN, GONE_AFTER = timedelta(seconds=10), timedelta(hours=1)  # of a matchmaker's process
WAITS_LONG = timedelta(minutes=5)
LOW, VERY_LOW = 1_000_000_000, 100_000_000  # bytes
WEB, MATCHMAKER, WEBHOOKS, DISK = Of("web"), Of("matchmaker"), Of("webhooks"), Of("disk")


@dataclass(frozen=True)
class WebAnswer:
    """Of GET /monitor at `url`. `status` None: no answer. `is_known`: the address is one that was set, or at which
    `manage.py up` started its web server; else it is a guess."""

    url: str
    is_known: bool
    status: int | None = None
    is_ours: bool = False
    message: str = ""


def web_url() -> tuple[str, bool]:
    """The web server's address, and whether that is known."""
    if settings.MATCHMAKER_MANAGER_URL_IS_SET:
        return settings.MATCHMAKER_MANAGER_URL, True
    url = settings.WEB_URL_FILE.read_text().strip() if settings.WEB_URL_FILE.exists() else ""
    return url or settings.MATCHMAKER_MANAGER_URL, bool(url)


def web_answer() -> WebAnswer:
    url, is_known = web_url()
    try:
        answer = httpx.get(f"{url}/monitor", timeout=ANSWER_WITHIN_S, trust_env=False)
        document = answer.json()
        is_ours = document.get("installation_id") == installation_id()
        return WebAnswer(url, is_known, answer.status_code, is_ours, str(document.get("message", "")))
    except (httpx.HTTPError, httpx.InvalidURL):
        return WebAnswer(url, is_known)
    except (ValueError, AttributeError):  # no JSON, or no object
        return WebAnswer(url, is_known, answer.status_code)


def look_at_web() -> Iterator[Finding]:
    """From here, and by the nodes: their keys are noted when a request with them was answered."""
    found, heard = web_answer(), web_heard_ago()
    if found.is_ours and found.status == 200:
        yield WEB.ok("answers", f"{found.url} answers")
    elif found.is_ours:
        yield WEB.warning("answers", f"{found.url} answers {found.status}: {found.message}", "See the other findings.")
    elif not found.is_known and heard is not None and heard < NODES_HEARD_WITHIN:
        text = f"nodes reached it {heard.total_seconds():.0f} s ago; it is not at {found.url} from here"
        yield WEB.warning("answers", text, "Say where it is: CAUSEWAY_MATCHMAKER_MANAGER_URL.")
    else:
        told = "does not answer"
        if found.status is not None:
            told = f"answers {found.status}, and is not of this installation (it has another SECRET_KEY)"
        last = f", and no node has reached it for {heard.total_seconds():.0f} s" if heard is not None else ""
        todo = (
            "Start it: uvicorn --http web.http.protocol:BoundedProtocol --no-proxy-headers "
            "relaymgr.asgi:application. "
            "If it is elsewhere, say where: CAUSEWAY_MATCHMAKER_MANAGER_URL."
        )
        yield WEB.problem("answers", f"{found.url} {told}{last}", todo)


def web_heard_ago() -> timedelta | None:
    """Since a web server last answered a node, as far as it was noted; None: never."""
    last = ApiKey.objects.filter(scopes=[Scope.NODE.value]).aggregate(last=Max("last_used_at"))["last"]
    return timedelta(seconds=age_s(last, timezone.now())) if last else None


def look_at_matchmaker() -> Iterator[Finding]:
    """By its processes' rows: the model by name, for the manager knows nothing of the matchmaker."""
    processes = apps.get_model("matchmaker", "Process")._default_manager.filter(seen_at__gt=timezone.now() - GONE_AFTER)
    seen = list(processes.values_list("name", "seen_at", "manager_reachable"))
    now = timezone.now()
    alive = [name for name, seen_at, _ in seen if age_s(seen_at, now) < ALIVE_WITHIN.total_seconds()]
    todo = "Start it: manage.py runmatchmaker, with CAUSEWAY_MATCHMAKER_KEY."
    if alive:
        yield MATCHMAKER.ok("runs", f"{len(alive)}: {', '.join(alive)}")
        if not any(answers for name, _, answers in seen if name in alive):
            hint = "Is CAUSEWAY_MATCHMAKER_MANAGER_URL right where it runs, and its key not revoked?"
            yield MATCHMAKER.problem("manager", "the manager does not answer it", hint)
    elif seen:
        ago = timezone.now() - max(seen_at for _, seen_at, _ in seen)
        yield MATCHMAKER.problem("runs", f"none runs; the last was seen {ago.total_seconds():.0f} s ago", todo)
    elif settings.MATCHMAKER_KEY:
        yield MATCHMAKER.problem("runs", "none runs, though it has a key", todo)
    else:
        yield MATCHMAKER.ok("runs", "none is set up")
    states = apps.get_model("matchmaker", "PassState")._default_manager.filter(suspended_until__isnull=False)
    aside = states.values_list("version__profile__tenant", "version__profile__name", "version__number", "error")[:5]
    for tenant, name, number, error in aside:
        todo = "The console shows it under Profile versions; its tenant can activate another version."
        yield MATCHMAKER.warning("set aside", f"{tenant}/{name} v{number}, whose passes fail: {error}", todo)


def look_at_webhooks() -> Iterator[Finding]:
    now = timezone.now()
    due_long = WebhookDelivery.objects.filter(next_attempt_at__lt=now - WAITS_LONG)
    late = due_long.exclude(circuit_is_open(now)).count()
    waiting = WebhookDelivery.objects.exclude(next_attempt_at=None).count()
    given_up = WebhookDelivery.objects.filter(
        next_attempt_at=None, delivered_at=None, created_at__gt=now - timedelta(hours=24)
    )
    if late:
        todo = "Is a worker on the queue webhook? See the finding on workers."
        yield WEBHOOKS.problem("backlog", f"{late} of {waiting} have been due for over five minutes", todo)
    else:
        yield WEBHOOKS.ok("backlog", f"{waiting} on their way")
    circuits = WebhookEndpoint.objects.filter(retry_at__isnull=False)
    if broken := list(circuits.values_list("tenant__slug", "host")[:5]):
        hosts = ", ".join(f"{host} of {tenant}" for tenant, host in broken)
        todo = "Inform these studios. Each endpoint is tried again every few minutes; the admin can do it at once."
        yield WEBHOOKS.warning("circuits", f"{circuits.count()} endpoints keep failing: {hosts}", todo)
    if lost := given_up.count():
        tenants = sorted(set(given_up.values_list("tenant__slug", flat=True)))[:5]
        todo = "Tell these studios that their URL did not answer; the admin can send again."
        yield WEBHOOKS.warning("given up", f"{lost} within a day, of {', '.join(tenants)}", todo)


def look_at_disk() -> Iterator[Finding]:
    folder = settings.STATE_DIR
    free = shutil.disk_usage(folder).free
    text = f"{free / 1e9:.1f} GB free where {folder} is"
    todo = "Make room: database and broker stop when it is full."
    if not os.access(folder, os.W_OK):
        yield DISK.problem("room", f"{folder} cannot be written to", "Run as its owner, or set CAUSEWAY_STATE_DIR.")
    elif free < LOW:
        yield (DISK.problem if free < VERY_LOW else DISK.warning)("room", text, todo)
    else:
        yield DISK.ok("room", text)

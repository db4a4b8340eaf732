"""The web server, the delivery of webhooks, and the space on the disk."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import httpx
from django.conf import settings
from django.utils import timezone

from relaymgr.monitor import installation_id
from relaymgr.sessions.webhooks.selectors import circuits_open, deliveries_undelivered, deliveries_waiting
from relaymgr.tenants.selectors import node_key_last_used_at
from web.admin.age import age_s
from web.diagnostics import Check, Finding

RESPONSE_TIMEOUT_S = 3.0
NODES_SEEN_WITHIN_S = 90.0  # heartbeats come every 5 s, and their time is stored once a minute
OVERDUE = timedelta(minutes=5)
LOW, VERY_LOW = 1_000_000_000, 100_000_000  # bytes
LISTED = 5
WEB, WEBHOOKS, DISK = Check("web"), Check("webhooks"), Check("disk")


@dataclass(frozen=True)
class MonitorResponse:
    """The response to GET /monitor at `url`. `status` None: there was none. `is_known`: the address was configured, or
    `manage.py up` started its web server there; otherwise it is a guess."""

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


def monitor_get() -> MonitorResponse:
    url, is_known = web_url()
    try:
        response = httpx.get(f"{url}/monitor", timeout=RESPONSE_TIMEOUT_S, trust_env=False)
        document = response.json()
        is_ours = document.get("installation_id") == installation_id()
        return MonitorResponse(url, is_known, response.status_code, is_ours, str(document.get("message", "")))
    except (httpx.HTTPError, httpx.InvalidURL):
        return MonitorResponse(url, is_known)
    except (ValueError, AttributeError):  # no JSON, or no object
        return MonitorResponse(url, is_known, response.status_code)


def check_web() -> Iterator[Finding]:
    """By a request from here, and by the last request of a node that the web server authenticated."""
    found, node_age_s = monitor_get(), node_request_age_s()
    if found.is_ours and found.status == 200:
        yield WEB.ok("reachable", f"{found.url} responds")
    elif found.is_ours:
        hint = "The other findings show the cause."
        yield WEB.warning("reachable", f"{found.url} responds with {found.status}: {found.message}", hint)
    elif not found.is_known and node_age_s is not None and node_age_s < NODES_SEEN_WITHIN_S:
        message = f"nodes reached it {node_age_s:.0f} s ago, but it is not at {found.url} from here"
        yield WEB.warning("reachable", message, "Set CAUSEWAY_MATCHMAKER_MANAGER_URL to its address.")
    else:
        fault = "does not respond"
        if found.status is not None:
            fault = f"responds with {found.status}, but is not of this installation (it has another SECRET_KEY)"
        last = f", and no node has reached it for {node_age_s:.0f} s" if node_age_s is not None else ""
        hint = (
            "Start it: uvicorn --http web.http.protocol:BoundedProtocol --no-proxy-headers "
            "relaymgr.asgi:application. "
            "If it runs at another address, set CAUSEWAY_MATCHMAKER_MANAGER_URL."
        )
        yield WEB.problem("reachable", f"{found.url} {fault}{last}", hint)


def node_request_age_s() -> float | None:
    """Time since a web server last authenticated a node, at the precision of what is stored. None: never."""
    last = node_key_last_used_at()
    return age_s(last, timezone.now()) if last else None


def check_webhooks() -> Iterator[Finding]:
    now = timezone.now()
    waiting, overdue = deliveries_waiting(now=now, overdue=OVERDUE)
    if overdue:
        hint = "Check that a worker serves the queue webhook; see the finding on workers."
        yield WEBHOOKS.problem("backlog", f"{overdue} of {waiting} have been due for over five minutes", hint)
    else:
        yield WEBHOOKS.ok("backlog", f"{waiting} are waiting for delivery")
    if circuits := circuits_open():
        hosts = ", ".join(f"{host} of {tenant}" for tenant, host in circuits[:LISTED])
        hint = "Inform these tenants. Each endpoint is tried again every few minutes; the console can do so at once."
        yield WEBHOOKS.warning("open_circuits", f"{len(circuits)} endpoints keep failing: {hosts}", hint)
    if tenants := deliveries_undelivered(since=now - timedelta(hours=24)):
        hint = "Inform these tenants that their URL failed. The console can send the webhooks again."
        message = f"{sum(tenants.values())} in the last 24 hours, of {', '.join(sorted(tenants)[:LISTED])}"
        yield WEBHOOKS.warning("undelivered", message, hint)


def check_disk() -> Iterator[Finding]:
    folder = settings.STATE_DIR
    free = shutil.disk_usage(folder).free
    message = f"{free / 1e9:.1f} GB are free in {folder}"
    hint = "Free some space: database and broker stop when the disk is full."
    if not os.access(folder, os.W_OK):
        hint = "Run as the owner of the folder, or set CAUSEWAY_STATE_DIR."
        yield DISK.problem("writable", f"{folder} is not writable", hint)
    elif free < LOW:
        yield (DISK.problem if free < VERY_LOW else DISK.warning)("free_space", message, hint)
    else:
        yield DISK.ok("free_space", message)

"""Whether the broker responds, with a short timeout: Celery's own connections wait 5 s for a Redis that hangs."""

import logging
import threading
import time

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from relaymgr.celery import app
from web.cache import ANSWER_TIMEOUT, CONNECT_TIMEOUT

logger = logging.getLogger(__name__)

FRESH_FOR = 2.0  # seconds

_asking = threading.Lock()
_last: tuple[str, float, bool] | None = None  # URL, time, result


def broker_answers() -> bool:
    """A result is used for 2 seconds. One thread checks at a time; the others get the previous result."""
    global _last
    url = app.conf.broker_write_url
    last = _last if _last and _last[0] == url else None
    if last and time.monotonic() - last[1] < FRESH_FOR:
        return last[2]
    if not _asking.acquire(blocking=last is None):
        return bool(last and last[2])
    try:
        answer = _ask()
        _last = url, time.monotonic(), answer
    finally:
        _asking.release()
    return answer


def _ask() -> bool:
    try:
        with app.connection_for_write(connect_timeout=1) as broker:
            if broker.transport.driver_type == "redis":
                _ping(broker.as_uri(include_password=True))
            else:
                broker.ensure_connection(max_retries=0, timeout=1)
    except Exception as error:
        logger.warning("broker failed: %s", type(error).__name__)
        return False
    return True


def _ping(url: str) -> None:
    timeouts = {"socket_connect_timeout": CONNECT_TIMEOUT, "socket_timeout": ANSWER_TIMEOUT}
    with Redis.from_url(url, retry=Retry(NoBackoff(), 0), **timeouts) as server:
        server.ping()

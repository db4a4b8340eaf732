"""A circuit breaker: a server that failed is not called again for some seconds, so that its failure delays one request
and not every request."""

import threading
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class CircuitOpen(Exception):
    """The server failed recently, so it was not called."""


class CircuitBreaker:
    """For one server, shared by the threads of a process.

    After a failure, every call raises CircuitOpen for `pause` seconds. Then one call is made; the others still raise
    CircuitOpen until it has succeeded.
    """

    def __init__(self, failures: tuple[type[Exception], ...], pause: float = 5.0) -> None:
        self._failures = failures
        self._pause = pause
        self._lock = threading.Lock()
        self._closed = True
        self._next_try = 0.0

    @property
    def is_closed(self) -> bool:
        """Whether calls are made."""
        return self._closed

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Returns or raises what the function does. Raises CircuitOpen."""
        if not self._closed:
            self._claim_next_try()
        try:
            result = function(*args, **kwargs)
        except self._failures:
            self._closed, self._next_try = False, time.monotonic() + self._pause
            raise
        self._closed = True
        return result

    def _claim_next_try(self) -> None:
        with self._lock:
            now = time.monotonic()
            if now < self._next_try:
                raise CircuitOpen
            self._next_try = now + self._pause

"""What hardly changes from one moment to the next, and is asked for at each creation: the fleet."""

import functools
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from django.conf import settings

MOST = 1_000  # answers of a function

P = ParamSpec("P")
T = TypeVar("T")


def remembered(read: Callable[P, T]) -> Callable[P, T]:
    """Decorator: what `read` said to the same arguments is good for LOOKUP_CACHE_SECONDS seconds, in this process.

    Several threads get the same answer: it is not to be changed. What must not be missed is tested again where it is
    acted on, as by `worker_reserve`.
    """
    return remembered_where(lambda answer: True)(read)


def remembered_where(is_kept: Callable[[T], bool]) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """As `remembered`, of the answers for which `is_kept` is true."""
    return lambda read: _remembered(read, is_kept)


def _remembered(read: Callable[P, T], is_kept: Callable[[T], bool]) -> Callable[P, T]:
    answers: dict[object, tuple[float, T]] = {}

    @functools.wraps(read)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        asked, now = (args, tuple(sorted(kwargs.items()))), time.monotonic()
        at, answer = answers.get(asked, (0.0, None))
        if at and now < at + settings.LOOKUP_CACHE_SECONDS:
            return answer  # type: ignore[return-value]
        found = read(*args, **kwargs)
        if settings.LOOKUP_CACHE_SECONDS and is_kept(found):
            if len(answers) >= MOST:
                answers.clear()
            answers[asked] = now, found
        return found

    return call

"""Watches the logs of the whole run: no key, token or other secret may stand in any line, at any level.

In this process every record is looked at as it is made (tests/conftest.py). The logs of processes that tests start are
searched when these end (tests/support/node_process.py, tests/flows/stack.py).
"""

import logging
import re
from collections.abc import Set
from typing import Any

KEY = re.compile(r"cw_[0-9a-f]{12}_[A-Za-z0-9_-]{43}")  # tenants' keys, node keys, join keys
WORD = re.compile(r"[A-Za-z0-9_+/-]{8,}")  # shorter ones are not told from other numbers


def leaks(text: str, secrets: Set[str] = frozenset()) -> list[str]:
    """What of `secrets` stands in the text, and whatever looks like one of our keys; begins of them only."""
    words = (word + padding for word in WORD.findall(text) for padding in ("", "=", "=="))  # of base64
    return [f"{found[:6]}..." for found in {*KEY.findall(text), *(word for word in words if word in secrets)}]


class LogWatch(logging.Handler):
    """Collects what it should never see. `note` tells it a secret."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.secrets: set[str] = set()
        self.found: list[str] = []

    def note(self, *secrets: str) -> None:
        self.secrets.update(secret for secret in secrets if WORD.match(secret))

    def emit(self, record: logging.LogRecord) -> None:
        text = f"{record.getMessage()} {record.exc_text or ''} {_extras(record)}"
        self.found += [f"{record.name}: {leak}" for leak in leaks(text, self.secrets)]


_USUAL = vars(logging.makeLogRecord({})).keys()


def _extras(record: logging.LogRecord) -> str:
    more: dict[str, Any] = {name: value for name, value in vars(record).items() if name not in _USUAL}
    return " ".join(map(repr, more.values()))

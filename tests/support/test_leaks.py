"""The watch over the logs must itself see something."""

import logging
from collections.abc import Iterator

import pytest

from relaymgr.tenants.keys import new_key
from tests.support.leaks import LogWatch, leaks
from web.database.encryption import EncryptedTextField

logger = logging.getLogger("tests.support.leaks")


@pytest.fixture
def seen(log_watch: LogWatch) -> Iterator[list[str]]:
    """What the watch found in this test, on purpose: it is taken away before the test ends."""
    found: list[str] = []
    log_watch.found, kept = found, log_watch.found
    yield found
    log_watch.found = kept


def test_key_is_seen_wherever_it_stands_in_a_record(seen: list[str]) -> None:
    key = new_key().plain
    logger.warning("no key here")
    assert not seen
    logger.warning("key %s", key)
    logger.warning("in an extra", extra={"headers": {"Authorization": f"token {key}"}})
    assert len(seen) == 2
    assert key not in "".join(seen)


def test_whatever_is_sealed_is_seen(seen: list[str]) -> None:
    EncryptedTextField().get_prep_value("4294967291")
    logger.warning("token=4294967291, port=31000")
    assert seen == ["tests.support.leaks: 429496..."]


def test_part_of_a_longer_word_is_not_the_word() -> None:
    assert leaks("14294967291 4294967291x", ["4294967291"]) == []
    assert leaks('{"token": "4294967291"}', ["4294967291"]) == ["429496..."]

import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.core.cache import cache
from django.test import override_settings
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from tests.support.leaks import LogWatch
from tests.support.servers import redis_database
from web.database.encryption import EncryptedTextField

# Examples are counted, not timed: these machines are noisy.
hypothesis_settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("unhurried")

if "LOCATION" in settings.CACHES["default"]:
    settings.CACHES["default"]["LOCATION"] = redis_database(settings.CACHES["default"]["LOCATION"], 0)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that start processes come first: begun last, one of them would be waited for alone. Tests that use the
    database are marked, so that CI can repeat only these on another one."""
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if item.get_closest_marker("django_db") or {"db", "transactional_db"}.intersection(fixtures):
            item.add_marker("database")
    slow = {item.path for item in items if item.get_closest_marker("flow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Ends a run with the files that took longest, set-up and tear-down included."""
    seconds: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds[report.nodeid.partition("::")[0]] += report.duration
    terminalreporter.section("ten slowest files")
    for file, took in seconds.most_common(10):
        terminalreporter.write_line(f"{took:7.1f} s  {file}")


@pytest.fixture(autouse=True, scope="session")
def _fleet_is_as_it_is_now() -> Iterator[None]:
    """A test makes nodes and asks for a session at once."""
    with override_settings(LOOKUP_CACHE_SECONDS=0):
        yield


@pytest.fixture(autouse=True)
def _nothing_counted() -> None:
    """The rate limits of a test begin with it: a database that was rolled back gives the next tenant the same id."""
    cache.clear()


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings: None, tmp_path_factory: pytest.TempPathFactory) -> None:
    """SQLite in a file, as an installation has it: threads on one in-memory database see other locks. Here,
    as the first test that wants a database sets it up for all."""
    if settings.DATABASES["default"]["ENGINE"].endswith("sqlite3"):
        file = tmp_path_factory.mktemp("database") / "test.sqlite3"
        settings.DATABASES["default"]["TEST"] = {**settings.DATABASES["default"].get("TEST", {}), "NAME": str(file)}


@pytest.fixture(scope="session")
def log_watch() -> Iterator[LogWatch]:
    """Knows every secret that is sealed in this process: seats' tokens and keys, nodes' keys, webhook secrets."""
    watch = LogWatch()
    seal = EncryptedTextField.get_prep_value

    def noting(field: Any, value: str | None) -> str | None:
        watch.note(value or "")
        return seal(field, value)

    EncryptedTextField.get_prep_value = noting  # type: ignore[method-assign]
    yield watch
    EncryptedTextField.get_prep_value = seal  # type: ignore[method-assign]


@pytest.fixture(autouse=True)
def no_secret_reaches_a_log(log_watch: LogWatch) -> Iterator[None]:
    root = logging.getLogger()
    log_watch.found.clear()
    root.addHandler(log_watch)
    yield
    root.removeHandler(log_watch)
    assert not log_watch.found

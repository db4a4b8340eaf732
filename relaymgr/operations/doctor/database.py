"""The database: reachable, of the version of this code, and of the same time as this machine."""

from collections.abc import Iterator
from datetime import UTC, datetime
from time import time

from django.conf import settings
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor

from web.database.connections import Health, health_now

from .findings import Finding, Of

DATABASE = Of("database")
CLOCK_WARNING_S = 1.0  # leases and expiries are by the clocks of the manager's machines


def look() -> Iterator[Finding]:
    """The first finding says whether it can be used at all."""
    started = time()
    try:
        connection.ensure_connection()
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError as error:
        yield unreachable(type(error).__name__)
        return
    yield DATABASE.ok("reachable", f"{_server()}, in {1000 * (time() - started):.0f} ms")
    migrations = list(_migrations())
    if all(finding.level == "ok" for finding in migrations):  # else what is written to may not be there yet
        yield writes(health_now())
    yield from migrations
    if connection.vendor == "postgresql":
        yield clock(_clock_offset())


def writes(found: Health) -> Finding:
    if found == "works":
        return DATABASE.ok("writes", "it takes them")
    todo = (
        "After a failover: point DATABASE_URL, or the name in it, at the present primary. Is its disk full? Is "
        "default_transaction_read_only on?"
    )
    told = "it is read-only" if found == "read_only" else "a write failed"
    return DATABASE.problem("writes", told, todo)


def unreachable(why: str) -> Finding:
    server = settings.DATABASES["default"]
    where = f"{server['HOST']}:{server.get('PORT') or 5432}" if server.get("HOST") else str(server["NAME"])
    todo = "Start it, or set DATABASE_URL to where it is; look at its log. Nodes go on serving until it is back."
    return DATABASE.problem("reachable", f"{where} cannot be used ({why})", todo)


def clock(offset_s: float) -> Finding:
    text = f"{offset_s:+.3f} s from this machine's"
    if abs(offset_s) < CLOCK_WARNING_S:
        return DATABASE.ok("clock", text)
    make = DATABASE.problem if abs(offset_s) > settings.NODE_MAX_CLOCK_SKEW else DATABASE.warning
    return make("clock", text, "Synchronise both (NTP); `timedatectl` says how each stands.")


def _server() -> str:
    return f"{connection.display_name} {'.'.join(map(str, connection.get_database_version()))}"


def _clock_offset() -> float:
    before = time()
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        at: datetime = cursor.fetchone()[0]
    middle = (before + time()) / 2
    return at.astimezone(UTC).timestamp() - middle


def _migrations() -> Iterator[Finding]:
    executor = MigrationExecutor(connection)
    missing = [
        f"{migration.app_label}.{migration.name}"
        for migration, _ in executor.migration_plan(executor.loader.graph.leaf_nodes())
    ]
    if missing:
        yield DATABASE.problem(
            "migrations", f"not applied: {', '.join(missing)}", "Run: manage.py migrate, then restart the processes."
        )
    apps = executor.loader.migrated_apps
    newer = [
        f"{app}.{name}"
        for app, name in executor.loader.applied_migrations
        if app in apps and (app, name) not in executor.loader.disk_migrations
    ]
    if newer:
        todo = "Run the version that applied them, or migrate back with it before going back."
        yield DATABASE.problem("migrations", f"applied by a newer version: {', '.join(sorted(newer))}", todo)
    if not missing and not newer:
        yield DATABASE.ok("migrations", "all applied")

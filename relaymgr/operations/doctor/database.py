"""The database: whether it is reachable and writable, its migrations, and its clock."""

from collections.abc import Iterator
from datetime import UTC, datetime
from time import time

from django.conf import settings
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor

from web.database.connections import Health, health_now
from web.diagnostics import Check, Finding

DATABASE = Check("database")
CLOCK_WARNING_S = 1.0  # leases and expiry times are compared with the clocks of the manager's machines


def check() -> Iterator[Finding]:
    """The first finding says whether the database can be used at all."""
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
    if all(finding.level == "ok" for finding in migrations):  # else the table of the test write may not exist yet
        yield writable(health_now())
    yield from migrations
    if connection.vendor == "postgresql":
        yield clock(_clock_offset())


def writable(found: Health) -> Finding:
    if found == "works":
        return DATABASE.ok("writable", "a write succeeded")
    hint = (
        "After a failover, point DATABASE_URL, or the name in it, at the new primary. Otherwise check whether the disk "
        "is full and whether default_transaction_read_only is on."
    )
    message = "it is read-only" if found == "read_only" else "a write failed"
    return DATABASE.problem("writable", message, hint)


def unreachable(reason: str) -> Finding:
    server = settings.DATABASES["default"]
    where = f"{server['HOST']}:{server.get('PORT') or 5432}" if server.get("HOST") else str(server["NAME"])
    hint = "Start it, or correct DATABASE_URL; its log may say more. Nodes continue to serve their sessions meanwhile."
    return DATABASE.problem("reachable", f"{where} cannot be used ({reason})", hint)


def clock(offset_s: float) -> Finding:
    message = f"{offset_s:+.3f} s from the clock of this machine"
    if abs(offset_s) < CLOCK_WARNING_S:
        return DATABASE.ok("clock", message)
    make = DATABASE.problem if abs(offset_s) > settings.NODE_MAX_CLOCK_SKEW else DATABASE.warning
    return make("clock", message, "Synchronise both clocks (NTP); `timedatectl` shows the state of each.")


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
        hint = "Run `manage.py migrate`, then restart the processes."
        yield DATABASE.problem("migrations", f"not applied: {', '.join(missing)}", hint)
    apps = executor.loader.migrated_apps
    newer = [
        f"{app}.{name}"
        for app, name in executor.loader.applied_migrations
        if app in apps and (app, name) not in executor.loader.disk_migrations
    ]
    if newer:
        hint = "Run the version that applied them, or reverse them with that version before you downgrade."
        yield DATABASE.problem("migrations", f"applied by a newer version: {', '.join(sorted(newer))}", hint)
    if not missing and not newer:
        yield DATABASE.ok("migrations", "all are applied")

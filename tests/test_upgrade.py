"""Upgrade and rollback (docs/upgrading.md): the rule that migrations follow, and the way back and forth with data.

On the database of DATABASE_URL, in a new one on its server; else on SQLite.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import migrations, models
from django.db.migrations.loader import MigrationLoader

from tests.flows.stack import new_database

ROOT = Path(__file__).parent.parent
# What the version before carries: to there a rollback goes. Set anew with each release.
BEFORE = {
    "audit": "0001_initial",
    "tenants": "0001_initial",
    "nodes": "0001_initial",
    "telemetry": "0001_initial",
    "relay_sessions": "0001_initial",
    "matchmaker": "0001_initial",
}

# Runs in a process of its own: migrates, fills, goes back to BEFORE and forth again, then back to the first migrations
# and forth. Prints the rows of our tables before and after the first way.
THERE_AND_BACK = """
import json, sys
from datetime import timedelta
import django
django.setup()
from django.apps import apps
from django.core.management import call_command
from django.utils import timezone

def migrate(*where):
    call_command("migrate", *where, verbosity=0)

def rows():
    ours = [model for model in apps.get_models() if model._meta.app_label in before]
    return {model._meta.label_lower: list(model.objects.order_by("pk").values()) for model in ours}

before = json.loads(sys.argv[1])
migrate()

from relaymgr.nodes.models import Location, RelayNode, RelayWorker
from relaymgr.nodes.keys import join_key_create, token_key_rotate
from relaymgr.sessions.models import RelaySession
from relaymgr.tenants.models import Tenant
from relaymgr.tenants.services import api_key_create

tenant = Tenant.objects.create(name="Studio", slug="studio")
api_key_create(tenant=tenant, name="test", scopes=["relay"])
place = Location.objects.create(
    slug="frankfurt", city="Frankfurt", country="Germany", country_code="DE", continent="Europe", latitude=50.1,
    longitude=8.7,
)
node = RelayNode.objects.create(
    name="fra-1", location=place, public_ip="203.0.113.7", control_url="http://127.0.0.1:9", control_key="sealed"
)
worker = RelayWorker.objects.create(
    node=node, index=0, server_port=31000, client_port=31001, capacity=9, free_seats=7
)
token_key_rotate(node=node)
join_key_create(location=place)
join_key_create(location=place, uses=5)
RelaySession.objects.create(
    tenant=tenant, worker=worker, state="ready", token="12345", idle_timeout=300,
    expires_at=timezone.now() + timedelta(hours=1), metadata={"mode": "duel"},
)
filled = rows()
for app, migration in before.items():
    migrate(app, migration)
migrate()
back = rows()
for app in before:
    migrate(app, "0001_initial")
migrate()
print(json.dumps([filled, back], default=str))
"""


@pytest.mark.flow
def test_back_to_the_version_before_and_forth_again_keeps_the_data(tmp_path: Path) -> None:
    environment = os.environ | {
        "CAUSEWAY_STATE_DIR": str(tmp_path / "state"),
        "DJANGO_SETTINGS_MODULE": "relaymgr.settings",
    }
    if server := os.environ.get("DATABASE_URL"):
        environment["DATABASE_URL"] = new_database(server)
    argv = [sys.executable, "-c", THERE_AND_BACK, json.dumps(BEFORE)]
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    filled, back = json.loads(done.stdout)
    assert len(filled["nodes.joinkey"]) == 2 and len(filled["relay_sessions.relaysession"]) == 1
    added = new_columns()
    for label, rows in filled.items():
        # What the version before has no column for comes back with its default.
        kept = [column for column in (rows[0] if rows else {}) if column not in added.get(label, set())]
        assert [[row[name] for name in kept] for row in back[label]] == [[row[name] for name in kept] for row in rows]


def new_operations() -> Iterator[tuple[str, str, Any]]:
    """(app, migration, operation) of what the version before does not have, but for apps that it has not either."""
    loader = MigrationLoader(None)
    for (app, name), migration in sorted(loader.disk_migrations.items()):
        if app in BEFORE and name > BEFORE[app]:
            for operation in migration.operations:
                yield app, name, operation


def new_columns() -> dict[str, set[str]]:
    """{model's label, in lower case: columns}"""
    columns: dict[str, set[str]] = {}
    for app, _, operation in new_operations():
        if isinstance(operation, migrations.AddField):
            columns.setdefault(f"{app}.{operation.model_name}", set()).update({operation.name, f"{operation.name}_id"})
    return columns


def test_the_version_before_can_use_a_migrated_database() -> None:
    """While processes are replaced, and after a rollback of the code alone, it inserts rows that know of no new column
    and reads columns that it knows. What is to go, goes a version after the last one that reads it."""
    for app, name, operation in new_operations():
        where = f"{app} {name}: {operation.describe()}"
        assert not isinstance(operation, (migrations.RemoveField, migrations.RenameField)), where
        assert not isinstance(operation, (migrations.DeleteModel, migrations.RenameModel)), where
        assert not isinstance(operation, migrations.AlterModelTable), where
        if isinstance(operation, migrations.AddField) and not isinstance(operation.field, models.ManyToManyField):
            bears_absence = operation.field.null or operation.field.has_db_default()
            assert bears_absence, f"{where}: give it null=True or db_default"
        if isinstance(operation, migrations.RunPython):
            assert operation.reversible, f"{where}: give it reverse_code"

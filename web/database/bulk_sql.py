"""Inserts and updates of many rows at low cost: a round of probes stores thousands, and creating a session must be
fast.

Django's `bulk_create` and `bulk_update` cost several times as much for each row, because they build model instances and
quote all values into one long statement. Values have the types of their columns; for a JSON column, the value itself.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import msgspec
from django.db import connection
from django.db.models import AutoField, DateTimeField, Field, JSONField, Model

from web.database.encryption import EncryptedTextField

Row = Sequence[Any]
Fields = tuple["Field[Any, Any]", ...]

# Objects from which on COPY is faster than a statement with all values: the driver parses such a statement in Python,
# which delays all other requests of the process.
COPIED_FROM = 16


def rows_insert(model: type[Model], names: Sequence[str], rows: Iterable[Row]) -> None:
    """Uses COPY on PostgreSQL."""
    fields = _fields(model, names)
    if connection.vendor == "postgresql":
        statement = f"COPY {_table(model, fields)} FROM STDIN"
        with connection.wrap_database_errors, connection.cursor() as cursor, cursor.copy(statement) as copy:
            for row in _adapted(fields, rows):
                copy.write_row(row)
    else:
        _run_many(_insert(model, fields), fields, rows)


def objects_insert(objects: Sequence[Model]) -> None:
    """Inserts new objects of one model. Faster than `bulk_create`; sends no signals."""
    model = type(objects[0])
    fields = _new_fields(model)
    rows = ([field.pre_save(each, add=True) for field in fields] for each in objects)
    key = model._meta.pk
    if connection.vendor == "postgresql" and len(objects) >= COPIED_FROM and isinstance(key, AutoField):
        keys = _new_keys(model, len(objects))
        keyed = ((value, *row) for value, row in zip(keys, rows, strict=True))
        rows_insert(model, [key.name, *(field.name for field in fields)], keyed)
    else:
        keys = _insert_returning(model, fields, list(_adapted(fields, rows)))
    for each, value in zip(objects, keys, strict=True):
        each.pk, each._state.adding, each._state.db = value, False, connection.alias


def _insert_returning(model: type[Model], fields: Fields, rows: Sequence[Row]) -> list[Any]:
    """The keys of the new rows, in their order, from one statement."""
    statement = f"{_insert(model, fields, len(rows))} RETURNING {_quote(model._meta.pk.column)}"
    with connection.cursor() as cursor:
        cursor.execute(statement, [value for row in rows for value in row])
        return [key for (key,) in cursor.fetchall()]


def _new_keys(model: type[Model], count: int) -> list[Any]:
    statement = "SELECT nextval(pg_get_serial_sequence(%s, %s)) FROM generate_series(1, %s)"
    with connection.cursor() as cursor:
        cursor.execute(statement, [_quote(model._meta.db_table), model._meta.pk.column, count])
        return [key for (key,) in cursor.fetchall()]


@functools.cache
def _new_fields(model: type[Model]) -> Fields:
    """The columns of a new object, without the generated key."""
    return tuple(field for field in model._meta.concrete_fields if not isinstance(field, AutoField))


def row_change(model: type[Model], where: Mapping[str, Any], **values: Any) -> bool:
    """Updates the row that matches `where`. False: no row matches."""
    statement, fields = _update(model, tuple(values), tuple(where))
    with connection.cursor() as cursor:
        cursor.execute(statement, next(_adapted(fields, [[*values.values(), *where.values()]])))
        return bool(cursor.rowcount)


def rows_upsert(model: type[Model], names: Sequence[str], rows: Iterable[Row], *, unique: Sequence[str]) -> None:
    """Replaces a row that already exists with the same values in the columns `unique`. No two of `rows` may have the
    same ones."""
    fields = _fields(model, names)
    new = [_quote(field.column) for field in fields if field.name not in unique]
    updates = ", ".join(f"{column} = excluded.{column}" for column in new)
    conflict = f"ON CONFLICT ({_columns(_fields(model, unique))}) DO UPDATE SET {updates}"  # nosec B608
    if connection.vendor != "postgresql":
        _run_many(f"{_insert(model, fields)} {conflict}", fields, rows)
    elif columns := list(zip(*_adapted(fields, rows), strict=True)):
        # An array for each column: a statement for each row takes several times as long.
        with connection.cursor() as cursor:
            cursor.execute(f"{_insert_arrays(model, fields)} {conflict}", [list(column) for column in columns])


def rows_update(model: type[Model], names: Sequence[str], rows: Iterable[Row], *, where: Sequence[str] = ()) -> None:
    """Each row holds the new values of the columns `names`, and then the values of the columns `where` that select the
    row; by default its primary key."""
    statement, fields = _update(model, tuple(names), tuple(where) or (model._meta.pk.name,))
    _run_many(statement, fields, rows)


def _run_many(statement: str, fields: Fields, rows: Iterable[Row]) -> None:
    if adapted := list(_adapted(fields, rows)):
        with connection.cursor() as cursor:
            cursor.executemany(statement, adapted)


# The statements. All names in them come from the model.


@functools.cache
def _insert(model: type[Model], fields: Fields, rows: int = 1) -> str:
    row = f"({', '.join(['%s'] * len(fields))})"
    return f"INSERT INTO {_table(model, fields)} VALUES {', '.join([row] * rows)}"  # noqa: S608  # nosec B608


@functools.cache
def _insert_arrays(model: type[Model], fields: Fields) -> str:
    types = (str(field.db_type(connection)).partition("(")[0] for field in fields)  # a cast to varchar(20) would cut
    arrays = ", ".join(f"%s::{name}[]" for name in types)
    return f"INSERT INTO {_table(model, fields)} SELECT * FROM unnest({arrays})"  # noqa: S608  # nosec B608


@functools.cache
def _update(model: type[Model], values: tuple[str, ...], where: tuple[str, ...]) -> tuple[str, Fields]:
    """The statement and the fields of its parameters."""
    new, old = _fields(model, values), _fields(model, where)
    sets = ", ".join(f"{_quote(field.column)} = %s" for field in new)
    tests = " AND ".join(f"{_quote(field.column)} = %s" for field in old)
    return f"UPDATE {_quote(model._meta.db_table)} SET {sets} WHERE {tests}", new + old  # noqa: S608  # nosec B608


def _table(model: type[Model], fields: Fields) -> str:
    return f"{_quote(model._meta.db_table)} ({_columns(fields)})"


def _columns(fields: Fields) -> str:
    return ", ".join(_quote(field.column) for field in fields)


def _fields(model: type[Model], names: Sequence[str]) -> Fields:
    return tuple(cast("Field[Any, Any]", model._meta.get_field(name)) for name in names)


def _quote(name: str | None) -> str:
    return connection.ops.quote_name(str(name))


# The values


def _adapted(fields: Fields, rows: Iterable[Row]) -> Iterator[Row]:
    adapters = {index: adapter for index, field in enumerate(fields) if (adapter := _adapter(field))}
    for row in rows:
        adapted = list(row)
        for index, adapt in adapters.items():
            if adapted[index] is not None:
                adapted[index] = adapt(adapted[index])
        yield adapted


def _adapter(field: "Field[Any, Any]") -> Callable[[Any], Any] | None:
    """Converts values of this column to what the database driver accepts. None: no conversion is needed."""
    if isinstance(field, JSONField):
        return lambda value: msgspec.json.encode(value).decode()
    if isinstance(field, EncryptedTextField):
        return field.get_prep_value
    if isinstance(field, DateTimeField):
        return connection.ops.adapt_datetimefield_value
    return None

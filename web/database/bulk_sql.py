"""Rows by the SQL that costs least to write: a round of probes stores thousands, a creation must be fast.

`bulk_create` and `bulk_update` cost several times as much for each row, in building objects and in quoting them into
one long statement. Values are of the types that the columns have; a JSON column is given what it is to hold.
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


def rows_insert(model: type[Model], names: Sequence[str], rows: Iterable[Row]) -> None:
    """On PostgreSQL by COPY."""
    fields = _fields(model, names)
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor, cursor.copy(f"COPY {_place(model, fields)} FROM STDIN") as copy:
            for row in _adapted(fields, rows):
                copy.write_row(row)
    else:
        _run_many(_insert(model, fields), fields, rows)


def objects_insert(objects: Sequence[Model]) -> None:
    """A few new objects of one model, in one statement. As `bulk_create`, but faster; no signal is sent."""
    model = type(objects[0])
    fields = _new_fields(model)
    rows = _adapted(fields, ([field.pre_save(each, add=True) for field in fields] for each in objects))
    statement = f"{_insert(model, fields, len(objects))} RETURNING {_quote(model._meta.pk.column)}"
    with connection.cursor() as cursor:
        cursor.execute(statement, [value for row in rows for value in row])
        keys = cursor.fetchall()
    for each, (key,) in zip(objects, keys, strict=True):
        each.pk, each._state.adding, each._state.db = key, False, connection.alias


@functools.cache
def _new_fields(model: type[Model]) -> Fields:
    """Those that a new object has."""
    return tuple(field for field in model._meta.concrete_fields if not isinstance(field, AutoField))


def row_change(model: type[Model], where: Mapping[str, Any], **values: Any) -> bool:
    """Give the row that is as `where` says these values; False: there is none."""
    statement, fields = _update(model, tuple(values), tuple(where))
    with connection.cursor() as cursor:
        cursor.execute(statement, next(_adapted(fields, [[*values.values(), *where.values()]])))
        return bool(cursor.rowcount)


def rows_upsert(model: type[Model], names: Sequence[str], rows: Iterable[Row], *, unique: Sequence[str]) -> None:
    """A row whose `unique` is there already takes the place of that one."""
    fields = _fields(model, names)
    new = [_quote(field.column) for field in fields if field.name not in unique]
    anew = ", ".join(f"{column} = excluded.{column}" for column in new)
    conflict = f"ON CONFLICT ({_columns(_fields(model, unique))}) DO UPDATE SET {anew}"  # nosec B608
    _run_many(f"{_insert(model, fields)} {conflict}", fields, rows)


def rows_update(model: type[Model], names: Sequence[str], rows: Iterable[Row], *, where: Sequence[str] = ()) -> None:
    """Each row: values for the columns `names`, then those of the columns `where` of the row to give them; by default
    its primary key."""
    statement, fields = _update(model, tuple(names), tuple(where) or (model._meta.pk.name,))
    _run_many(statement, fields, rows)


def _run_many(statement: str, fields: Fields, rows: Iterable[Row]) -> None:
    if adapted := list(_adapted(fields, rows)):
        with connection.cursor() as cursor:
            cursor.executemany(statement, adapted)


# The statements. All names in them are the model's.


@functools.cache
def _insert(model: type[Model], fields: Fields, rows: int = 1) -> str:
    row = f"({', '.join(['%s'] * len(fields))})"
    return f"INSERT INTO {_place(model, fields)} VALUES {', '.join([row] * rows)}"  # noqa: S608  # nosec B608


@functools.cache
def _update(model: type[Model], values: tuple[str, ...], where: tuple[str, ...]) -> tuple[str, Fields]:
    """The statement, and the fields of its parameters."""
    new, old = _fields(model, values), _fields(model, where)
    sets = ", ".join(f"{_quote(field.column)} = %s" for field in new)
    tests = " AND ".join(f"{_quote(field.column)} = %s" for field in old)
    return f"UPDATE {_quote(model._meta.db_table)} SET {sets} WHERE {tests}", new + old  # noqa: S608  # nosec B608


def _place(model: type[Model], fields: Fields) -> str:
    return f"{_quote(model._meta.db_table)} ({_columns(fields)})"


def _columns(fields: Fields) -> str:
    return ", ".join(_quote(field.column) for field in fields)


def _fields(model: type[Model], names: Sequence[str]) -> Fields:
    return tuple(cast("Field[Any, Any]", model._meta.get_field(name)) for name in names)


def _quote(name: str | None) -> str:
    return connection.ops.quote_name(str(name))


# Their values


def _adapted(fields: Fields, rows: Iterable[Row]) -> Iterator[Row]:
    adapters = {place: adapter for place, field in enumerate(fields) if (adapter := _adapter(field))}
    for row in rows:
        adapted = list(row)
        for place, adapt in adapters.items():
            if adapted[place] is not None:
                adapted[place] = adapt(adapted[place])
        yield adapted


def _adapter(field: "Field[Any, Any]") -> Callable[[Any], Any] | None:
    """What makes of a value what the database takes, for the columns of which it would not take it as it is."""
    if isinstance(field, JSONField):
        return lambda value: msgspec.json.encode(value).decode()
    if isinstance(field, EncryptedTextField):
        return field.get_prep_value
    if isinstance(field, DateTimeField):
        return connection.ops.adapt_datetimefield_value
    return None

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

from relaymgr.sealing import SealedField

Row = Sequence[Any]


def rows_insert(model: type[Model], names: Sequence[str], rows: Iterable[Row]) -> None:
    """On PostgreSQL by COPY."""
    fields = _fields(model, names)
    table, columns = _quote(model._meta.db_table), _columns(fields)
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            with cursor.copy(f"COPY {table} ({columns}) FROM STDIN") as copy:
                for row in _adapted(fields, rows):
                    copy.write_row(row)
        else:
            cursor.executemany(_insert(table, columns, fields), list(_adapted(fields, rows)))


def objects_insert(objects: Sequence[Model]) -> None:
    """A few new objects of one model, in one statement. As `bulk_create`, but faster; no signal is sent."""
    model = type(objects[0])
    fields, insert = _insertion(model)
    rows = _adapted(fields, ([field.pre_save(each, add=True) for field in fields] for each in objects))
    one = f"({', '.join(['%s'] * len(fields))})"
    statement = f"{insert} {', '.join([one] * len(objects))} RETURNING {_quote(model._meta.pk.column)}"
    with connection.cursor() as cursor:
        cursor.execute(statement, [value for row in rows for value in row])
        keys = cursor.fetchall()
    for each, (key,) in zip(objects, keys, strict=True):
        each.pk, each._state.adding, each._state.db = key, False, connection.alias


@functools.cache
def _insertion(model: type[Model]) -> tuple[list["Field[Any, Any]"], str]:
    """The fields of a new object, and the statement up to its values."""
    fields = [field for field in model._meta.concrete_fields if not isinstance(field, AutoField)]
    return fields, f"INSERT INTO {_quote(model._meta.db_table)} ({_columns(fields)}) VALUES"  # nosec B608


def row_change(model: type[Model], where: Mapping[str, Any], **values: Any) -> bool:
    """Give the row that is as `where` says these values; False: there is none."""
    statement, fields = _change(model, tuple(values), tuple(where))
    with connection.cursor() as cursor:
        cursor.execute(statement, next(_adapted(fields, [[*values.values(), *where.values()]])))
        return bool(cursor.rowcount)


@functools.cache
def _change(model: type[Model], values: tuple[str, ...], where: tuple[str, ...]) -> tuple[str, list["Field[Any, Any]"]]:
    new, old = _fields(model, values), _fields(model, where)
    sets = ", ".join(f"{_quote(field.column)} = %s" for field in new)
    tests = " AND ".join(f"{_quote(field.column)} = %s" for field in old)
    return f"UPDATE {_quote(model._meta.db_table)} SET {sets} WHERE {tests}", [*new, *old]  # noqa: S608  # nosec B608


def rows_upsert(model: type[Model], names: Sequence[str], rows: Iterable[Row], *, unique: Sequence[str]) -> None:
    """A row whose `unique` is there already takes the place of that one."""
    fields = _fields(model, names)
    new = [_quote(field.column) for field in fields if field.name not in unique]
    insert = _insert(_quote(model._meta.db_table), _columns(fields), fields)
    anew = ", ".join(f"{column} = excluded.{column}" for column in new)
    _run_many(f"{insert} ON CONFLICT ({_columns(_fields(model, unique))}) DO UPDATE SET {anew}", fields, rows)  # nosec B608


def rows_update(model: type[Model], names: Sequence[str], rows: Iterable[Row]) -> None:
    """Each row: values for the columns `names`, then the primary key of whom to give them."""
    fields = _fields(model, names)
    columns = ", ".join(f"{_quote(field.column)} = %s" for field in fields)
    _run_many(f"UPDATE {_quote(model._meta.db_table)} SET {columns} WHERE id = %s", [*fields, model._meta.pk], rows)  # noqa: S608  # nosec B608


def _run_many(statement: str, fields: Sequence["Field[Any, Any]"], rows: Iterable[Row]) -> None:
    if adapted := list(_adapted(fields, rows)):
        with connection.cursor() as cursor:
            cursor.executemany(statement, adapted)


def _insert(table: str, columns: str, fields: Sequence[object]) -> str:
    """The names in it are the model's."""
    return f"INSERT INTO {table} ({columns}) VALUES ({', '.join(['%s'] * len(fields))})"  # noqa: S608  # nosec B608


def _adapted(fields: Sequence["Field[Any, Any]"], rows: Iterable[Row]) -> Iterator[Row]:
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
    if isinstance(field, SealedField):
        return field.get_prep_value
    if isinstance(field, DateTimeField):
        return connection.ops.adapt_datetimefield_value
    return None


def _fields(model: type[Model], names: Sequence[str]) -> list["Field[Any, Any]"]:
    return [cast("Field[Any, Any]", model._meta.get_field(name)) for name in names]


def _columns(fields: Iterable["Field[Any, Any]"]) -> str:
    return ", ".join(_quote(field.column) for field in fields)


def _quote(name: str | None) -> str:
    return connection.ops.quote_name(str(name))

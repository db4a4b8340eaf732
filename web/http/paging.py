"""Pagination by cursor. A cursor is the position after the last row of a page, so that no row is skipped when earlier
rows are deleted, and none is repeated when rows are added."""

import base64
import binascii
import json
from datetime import UTC, datetime
from typing import Any, TypeVar

from django.db.models import Model, Q, QuerySet
from rest_framework import serializers

M = TypeVar("M", bound=Model)
CURSOR_HELP = "The `next_cursor` of the previous response. Unlike page numbers, it skips no row when rows are deleted."
NEXT_HELP = "Send it as `cursor` to get the next page. Null: this is the last page."


class CursorField(serializers.CharField):
    """The values by which the last row of the previous page is ordered."""

    default_error_messages = {"cursor": "This is not a cursor. Send `next_cursor` of the previous response unchanged."}

    def __init__(self, **options: Any) -> None:
        super().__init__(max_length=300, required=False, help_text=CURSOR_HELP, **options)

    def to_internal_value(self, data: Any) -> list[str]:  # type: ignore[override]
        text = super().to_internal_value(data)
        try:
            values = json.loads(base64.urlsafe_b64decode(text))
        except (binascii.Error, ValueError, RecursionError):
            self.fail("cursor")
        if not isinstance(values, list) or not all(isinstance(value, str) and value.isprintable() for value in values):
            self.fail("cursor")  # no database accepts a NUL or an unpaired surrogate
        return values


def after(rows: QuerySet[M], order: tuple[str, ...], cursor: list[str] | None) -> QuerySet[M]:
    """The rows after the cursor, in this order. `order`: names of fields, with "-" for a descending order; their
    combination is unique. Raises ValidationError for the cursor of another list."""
    rows = rows.order_by(*order)
    if cursor is None:
        return rows
    values = _values(rows.model, order, cursor)
    beyond, same = Q(), Q()
    for name, value in zip(order, values, strict=True):
        field, comparison = (name[1:], "lt") if name.startswith("-") else (name, "gt")
        beyond |= same & Q(**{f"{field}__{comparison}": value})
        same &= Q(**{field: value})
    # As a separate condition, so that the database can use an index on the first field.
    first, comparison = (order[0][1:], "lte") if order[0].startswith("-") else (order[0], "gte")
    return rows.filter(beyond, **{f"{first}__{comparison}": values[0]})


def next_cursor(order: tuple[str, ...], last: Model | None) -> str | None:
    """The cursor after this row; None for the end of the list."""
    if last is None:
        return None
    values = [getattr(last, name.removeprefix("-")) for name in order]
    texts = [value.isoformat() if isinstance(value, datetime) else str(value) for value in values]
    return base64.urlsafe_b64encode(json.dumps(texts).encode()).decode()


def part_after(
    rows: QuerySet[M], order: tuple[str, ...], cursor: list[str] | None, limit: int
) -> tuple[list[M], str | None]:
    """At most `limit` rows after the cursor, and the cursor of the next page."""
    found = list(after(rows, order, cursor)[: limit + 1])
    return found[:limit], next_cursor(order, found[limit - 1] if len(found) > limit else None)


def _values(model: type[Model], order: tuple[str, ...], cursor: list[str]) -> list[Any]:
    try:
        fields = [model._meta.get_field(name.removeprefix("-")) for name in order]
        values = [field.to_python(text) for field, text in zip(fields, cursor, strict=True)]  # type: ignore[union-attr]
        for value in values:
            if isinstance(value, datetime):
                value.astimezone(UTC)  # fails outside of the years 1 to 9999, which no database accepts
        return values
    except Exception:  # each kind of field raises other exceptions
        problem = CursorField.default_error_messages["cursor"]
        raise serializers.ValidationError({"cursor": [problem]}, "cursor") from None

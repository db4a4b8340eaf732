"""Lists in pages, for the APIs of profiles and of inspection."""

from collections.abc import Mapping
from typing import Any, TypeVar

from django.db.models import Model, QuerySet
from rest_framework.request import Request

from web.fields.numbers import Integer
from web.http.input_warnings import RequestSerializer
from web.http.paging import CursorField, part_after

PAGE_SIZE_MAX = 200  # of a list, in one answer
M = TypeVar("M", bound=Model)


class PageQuerySerializer(RequestSerializer):
    cursor = CursorField()
    limit = Integer(1, PAGE_SIZE_MAX, default=PAGE_SIZE_MAX)


def page_query(kind: type[PageQuerySerializer], request: Request) -> dict[str, Any]:
    serializer = kind(data=request.query_params)
    serializer.is_valid(raise_exception=True)
    return serializer.validated_data


def page(query: Mapping[str, Any], rows: QuerySet[M], order: tuple[str, ...]) -> tuple[list[M], str | None]:
    return part_after(rows, order, query.get("cursor"), query["limit"])

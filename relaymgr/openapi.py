"""The OpenAPI document: names of its components, and what every operation says of errors."""

from functools import cache
from typing import Any

from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema
from rest_framework import serializers


class Generator(SchemaGenerator):
    """Makes the document that is served once: that takes seconds of a core, and anybody may ask."""

    def get_schema(self, request: Any = None, public: bool = False) -> Any:
        return super().get_schema(request, public) if request is None else _served(self.urlconf)


@cache
def _served(urlconf: str | None) -> Any:
    return SchemaGenerator(urlconf=urlconf).get_schema(public=True)


class Schema(AutoSchema):
    def get_tags(self) -> list[str]:
        """The resource: `nodes` for /v1/nodes:join as for /v1/nodes/self."""
        return [tag.partition(":")[0] for tag in super().get_tags()]

    def get_serializer_name(self, serializer: Any, direction: Any) -> str:
        """By the view it is nested in: NodeJoinApi.InputSerializer is NodeJoinInput."""
        parts = type(serializer).__qualname__.split(".")
        return "".join(part.removesuffix("Api").removesuffix("Serializer") for part in parts)


class ErrorSerializer(serializers.Serializer):
    message = serializers.CharField(help_text="For people.")
    code = serializers.CharField(help_text="For programs: stable.")
    details = serializers.DictField(help_text='A refused field is named here: {"users[0].ip": [{"message", "code"}]}.')


def error_responses(*statuses: int) -> dict[int, type[ErrorSerializer]]:
    """For extend_schema(responses=...). Those that any call with a key may get come by themselves."""
    return dict.fromkeys((*statuses, 401, 403, 429, 503), ErrorSerializer)

"""The OpenAPI document: names of its components, and what every operation says of errors."""

from functools import cache
from typing import Any

from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema
from rest_framework import serializers

from web.http.root_path import root_path

MATCHMAKER_URLS, MATCHMAKER_BASE = "matchmaker.urls", "/matchmaker"


class Generator(SchemaGenerator):
    """Makes the document that is served once: that takes seconds of a core, and anybody may ask."""

    def get_schema(self, request: Any = None, public: bool = False) -> Any:
        if request is None:
            return super().get_schema(request, public)
        document = _served(self.urlconf)
        # Paths are those of the URL configuration: below the root, or below the matchmaker's base URL.
        base = root_path() + (MATCHMAKER_BASE if self.urlconf == MATCHMAKER_URLS else "")
        return {**document, "servers": [{"url": base}]} if base else document


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


INPUT_WARNING = {
    "type": "object",
    "description": "A part of the request that has no effect.",
    "properties": {
        "field": {"type": "string", "description": 'Named as in errors: "users[0].topolgy".'},
        "code": {"type": "string", "description": "For programs: stable."},
        "message": {"type": "string", "description": "For people."},
    },
    "required": ["code", "field", "message"],
}
STRICT = {
    "in": "query",
    "name": "strict",
    "schema": {"type": "boolean", "default": False},
    "description": "Refuse with 400 what would otherwise be listed under `warnings`.",
}
METHODS = ("get", "post", "put", "patch", "delete")


def describe_numbers(result: Any, generator: Any, request: Any, public: bool) -> Any:
    """Hook of drf-spectacular: every whole number has the format that its range needs. Client generators choose the
    type by it."""

    def walk(schema: Any) -> None:
        if isinstance(schema, list):
            for item in schema:
                walk(item)
        elif isinstance(schema, dict):
            if schema.get("type") == "integer" and "maximum" in schema:
                fits = schema["minimum"] >= -(2**31) and schema["maximum"] < 2**31
                schema["format"] = "int32" if fits else "int64"
            for item in schema.values():
                walk(item)

    walk(result)
    return result


def describe_warnings(result: Any, generator: Any, request: Any, public: bool) -> Any:
    """Hook of drf-spectacular: what web.http.input_warnings does to each operation that takes a body or a query."""
    schemas = result["components"]["schemas"]
    schemas["InputWarning"] = INPUT_WARNING
    listed = {"type": "array", "items": {"$ref": "#/components/schemas/InputWarning"}, "description": "Absent: none."}
    for operations in result["paths"].values():
        for method in METHODS & operations.keys():
            operation = operations[method]
            parameters = operation.get("parameters", [])
            takes = {each["name"] for each in parameters if each["in"] == "query"} - {"format"}
            if "requestBody" not in operation and not takes:
                continue
            operation["parameters"] = [*parameters, STRICT]
            for status, response in operation["responses"].items():
                schema = response.get("content", {}).get("application/json", {}).get("schema", {})
                if status.startswith("2") and "$ref" in schema:
                    component = schemas[schema["$ref"].rpartition("/")[2]]
                    component["properties"] = {**component["properties"], "warnings": listed}
    return result


class ErrorSerializer(serializers.Serializer):
    message = serializers.CharField(help_text="For people.")
    code = serializers.CharField(help_text="For programs: stable.")
    details = serializers.DictField(help_text='A refused field is named here: {"users[0].ip": [{"message", "code"}]}.')


def error_responses(*statuses: int) -> dict[int, type[ErrorSerializer]]:
    """For extend_schema(responses=...). Those that any call with a key may get come by themselves."""
    return dict.fromkeys((*statuses, 401, 403, 429, 503), ErrorSerializer)

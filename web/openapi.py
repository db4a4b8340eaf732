"""The OpenAPI document: the names of its components, number formats, warnings and errors of every operation."""

from functools import cache
from typing import Any

from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.openapi import AutoSchema
from rest_framework import serializers

from web.http.root_path import root_path

MATCHMAKER_URLS, MATCHMAKER_BASE = "matchmaker.urls", "/matchmaker"


class Generator(SchemaGenerator):
    """Generates each served document once, because that takes seconds of CPU time and any client may request it."""

    def get_schema(self, request: Any = None, public: bool = False) -> Any:
        if request is None:
            return super().get_schema(request, public)
        document = _served(self.urlconf)
        # Paths are relative to the URL configuration: to the root, or to the matchmaker's base URL.
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
        """Named after the view in which it is nested: NodeJoinApi.InputSerializer becomes NodeJoinInput."""
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
    "description": "Refuse the request with 400 instead of listing `warnings`.",
}
METHODS = ("get", "post", "put", "patch", "delete")


def describe_numbers(result: Any, generator: Any, request: Any, public: bool) -> Any:
    """Hook of drf-spectacular: every integer gets the format that its range requires, by which generators of clients
    choose a type."""

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
    """Hook of drf-spectacular: describes web/http/input_warnings.py for each operation that takes a body or a query."""
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
    """For extend_schema(responses=...). Includes the errors that every call with a key may get."""
    return dict.fromkeys((*statuses, 401, 403, 429, 503), ErrorSerializer)

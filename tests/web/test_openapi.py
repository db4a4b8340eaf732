import io
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return Client().get("/v1/openapi.json").json()


def test_document_is_valid_and_nothing_in_it_is_guessed() -> None:
    call_command("spectacular", "--validate", "--fail-on-warn", stdout=io.StringIO())


def test_every_operation_declares_its_errors(document: dict[str, Any]) -> None:
    error = {"$ref": "#/components/schemas/Error"}
    for path, operations in document["paths"].items():
        if path.endswith("/monitor"):
            continue
        for method, operation in operations.items():
            for status in ("401", "403", "429", "503"):
                content = operation["responses"][status]["content"]["application/json"]
                assert content["schema"] == error, (path, method, status)
            if "requestBody" in operation:
                assert {"400", "413", "415"} <= operation["responses"].keys(), (path, method)


def test_every_operation_says_which_key_it_wants(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        wanted = {
            "/monitor": None,
            "/matchmaker/monitor": None,
            "/v1/nodes:join": [{"join_key": []}],
        }.get(path, [{"key": []}])
        for operation in operations.values():
            assert operation.get("security") == wanted, path


def test_docs_page_needs_nothing_from_elsewhere() -> None:
    page = Client().get("/docs")
    assert page.status_code == 200
    html = page.content.decode()
    assert "/static/drf_spectacular_sidecar/swagger-ui-dist/swagger-ui-bundle.js" in html
    assert "http://" not in html and "https://" not in html and '"//' not in html


def test_static_files_of_docs_and_admin_are_served() -> None:
    for path in ("drf_spectacular_sidecar/swagger-ui-dist/swagger-ui-bundle.js", "admin/css/base.css"):
        assert Client().get(f"/static/{path}").status_code == 200


def test_operations_are_grouped_by_resource() -> None:
    paths = Client().get("/v1/openapi.json").json()["paths"]
    groups = {tag for operations in paths.values() for operation in operations.values() for tag in operation["tags"]}
    assert groups == {"ip", "ips", "locations", "matchmaker", "monitor", "nodes", "players", "relays", "tenant"}


def test_bare_address_leads_a_browser_to_the_docs() -> None:
    response = Client().get("/")
    assert (response.status_code, response["Location"]) == (302, "/docs")


def test_every_number_has_its_range_and_format(document: dict[str, Any]) -> None:
    def numbers(schema: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
        if isinstance(schema, dict):
            if schema.get("type") in ("integer", "number"):
                yield path, schema
            for name, inner in schema.items():
                yield from numbers(inner, f"{path}/{name}")
        elif isinstance(schema, list):
            for index, inner in enumerate(schema):
                yield from numbers(inner, f"{path}/{index}")

    matchmaker = Client().get("/matchmaker/swagger/v1/swagger.json").json()
    found = [*numbers(document, ""), *numbers(matchmaker, "matchmaker")]
    assert len(found) > 150
    for path, schema in found:
        assert {"minimum", "maximum", "format"} <= schema.keys(), path
        fits = schema["minimum"] >= -(2**31) and schema["maximum"] < 2**31
        wanted = "double" if schema["type"] == "number" else "int32" if fits else "int64"
        assert schema["format"] == wanted, path


def test_tokens_are_declared_as_what_they_are(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for component, field in (
        ("Session", "authorization_token"),
        ("Seat", "authorization_token"),
        ("UserRevokeInput", "authorization_token"),
        ("Assignment", "session_token"),
        ("Assignment", "user_token"),
    ):
        token = schemas[component]["properties"][field]
        assert (token["minimum"], token["maximum"], token["format"]) == (0, 2**32 - 1, "int64"), component


def test_every_operation_with_a_body_or_a_query_declares_warnings_and_strict(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if path.endswith("/events"):
                continue  # a stream, in one of two formats
            names = [each["name"] for each in operation.get("parameters", []) if each["in"] == "query"]
            assert ("strict" in names) == ("requestBody" in operation or len(names) > 1), (path, method)
            if names:
                [ok] = [found for status, found in operation["responses"].items() if status in ("200", "201")]
                component = ok["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
                assert "warnings" in document["components"]["schemas"][component]["properties"], (path, method)

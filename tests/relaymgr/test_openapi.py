import io
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
    assert groups == {"ip", "ips", "locations", "matchmaker", "monitor", "nodes", "relays"}


def test_bare_address_leads_a_browser_to_the_docs() -> None:
    response = Client().get("/")
    assert (response.status_code, response["Location"]) == (302, "/docs")

"""No number of any size or form, wherever a number is read, ends in a server error."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from rest_framework.test import APIClient

from relaymgr.nodes.models import RelayNode
from relaymgr.tenants.models import Tenant
from relaymgr.tenants.services import api_key_create
from tests.security.routes import fill
from tests.support.manager import client_with

pytestmark = pytest.mark.django_db
# As JSON spells them: 400 digits, the same as text, text that `float` reads as no number.
NUMBERS = ["9" * 400, f'"{"9" * 400}"', '"nan"']


@pytest.fixture
def clients(tenant: Tenant, node: RelayNode) -> list[APIClient]:
    Tenant.objects.update(requests_per_minute=10**6)
    node.key, plain = api_key_create(tenant=None, name="n", scopes=["node"])
    node.save()
    return [client_with(api_key_create(tenant=tenant, name="t", scopes=["relay"])[1]), client_with(plain)]


def paths_to_numbers(schema: Any, schemas: dict[str, Any], depth: int = 0) -> Iterator[tuple[Any, ...]]:
    """Where numbers may stand in a body: names of properties, 0 for an item of a list, and "any" for any property."""
    for part in schema.get("allOf", []):
        yield from paths_to_numbers(part, schemas, depth)
    if "$ref" in schema:
        schema = schemas[schema["$ref"].rpartition("/")[2]]
    if schema.get("type") in ("integer", "number") or depth > 6:
        yield ()
    for name, inner in schema.get("properties", {}).items():
        yield from ((name, *rest) for rest in paths_to_numbers(inner, schemas, depth + 1))
    if "items" in schema:
        yield from ((0, *rest) for rest in paths_to_numbers(schema["items"], schemas, depth + 1))
    if "additionalProperties" in schema:
        inner = schema["additionalProperties"]
        yield from (("any", *rest) for rest in (paths_to_numbers(inner, schemas, depth + 1) if inner else [()]))


def body(path: tuple[Any, ...], number: str) -> str:
    if not path:
        return number
    inner = body(path[1:], number)
    return f"[{inner}]" if path[0] == 0 else json.dumps({path[0]: None}).replace("null", inner)


def test_no_number_is_a_server_error(clients: list[APIClient]) -> None:
    document = clients[0].get("/v1/openapi.json").json()
    asked = 0
    for template, operations in document["paths"].items():
        for method, operation in operations.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            paths = list(paths_to_numbers(content.get("schema", {}), document["components"]["schemas"]))
            client = clients[1 if template.startswith("/v1/nodes") else 0]
            for path in paths:
                for number in NUMBERS:
                    answer = getattr(client, method)(
                        fill(template), body(path, number), content_type="application/json"
                    )
                    assert answer.status_code < 500, (template, path, number)
                    asked += 1
            for parameter in operation.get("parameters", []):
                if parameter["schema"].get("type") not in ("integer", "number"):
                    continue
                for number in NUMBERS:
                    plain = number.strip('"')
                    where = (
                        fill(template, **{parameter["name"]: plain}) if parameter["in"] == "path" else fill(template)
                    )
                    query = {parameter["name"]: plain} if parameter["in"] == "query" else {}
                    answer = clients[0].generic(
                        method.upper(), where, QUERY_STRING="&".join(map("=".join, query.items()))
                    )
                    assert answer.status_code < 500, (template, parameter["name"], number)
                    asked += 1
    assert asked > 150


@pytest.mark.parametrize("number", NUMBERS[:1])
def test_a_configuration_with_such_a_number_is_400_and_says_so(clients: list[APIClient], number: str) -> None:
    config = (
        '{"config": {"rules": {"initial": {"a": {"type": "number_difference", "attributes": {"max_difference": %s}}}}}}'
    )
    answer = clients[0].post("/matchmaker/profiles:validate", config % number, content_type="application/json")
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed")

"""Whatever is sent, the server answers as its own OpenAPI document says, and never with a 5xx that is not ours.

The document is generated from the code; schemathesis makes the requests from it, good and bad.
"""

import base64
import io
import os
from collections.abc import Callable
from typing import Any

import pytest
import schemathesis
import yaml
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from rest_framework.test import APIClient
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from relaymgr.nodes.models import RelayNode, TokenKey
from relaymgr.sessions.models import RelaySession, SessionState
from relaymgr.tenants.models import Tenant
from relaymgr.tenants.services import api_key_create
from tests.relaymgr.sessions.conftest import SESSIONS, TWO_USERS, obedient
from tests.support.manager import StandIn

# Requests go through WSGI, which closes its connections: a test that is one transaction would lose it.
# One test asks every operation.
pytestmark = pytest.mark.django_db(transaction=True)


def no_server_error(context: Any, response: Any, case: Any) -> None:
    """503 is an answer (no relay fits the filters, the node of a session is gone); any other 5xx is a bug."""
    assert response.status_code < 500 or response.status_code == 503, response.text


CHECKS = [no_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
# More of them, and others each time: `make fuzz ARGS="--target openapi --seconds 600"`.
WANTED = int(os.environ.get("FUZZ_EXAMPLES", 0))
EXAMPLES = hypothesis_settings(
    max_examples=WANTED or 2, deadline=None, derandomize=not WANTED, suppress_health_check=list(HealthCheck)
)


@pytest.fixture
def document() -> Any:
    return schemathesis.openapi.from_wsgi("/v1/openapi.json", get_wsgi_application())


@pytest.fixture
def document_without_corners() -> Any:
    """Examples only, without the cases that schemathesis counts up, which take longest: a tenant's requests try those,
    and in its long form every test."""
    config = schemathesis.Config.from_dict({"phases": {"coverage": {"enabled": WANTED > 0}}})
    return schemathesis.openapi.from_wsgi("/v1/openapi.json", get_wsgi_application(), config=config)


schema = schemathesis.pytest.from_fixture("document")
schema_without_corners = schemathesis.pytest.from_fixture("document_without_corners")


@pytest.fixture
def node(make_node: Callable[..., RelayNode], stand_in: StandIn) -> RelayNode:
    stand_in.answer = obedient
    made = make_node(seats=1_000_000, control_url=stand_in.url)
    TokenKey.objects.create(node=made, key_id=1, key=base64.b64encode(bytes(32)).decode())
    return made


@pytest.fixture
def node_key(node: RelayNode) -> str:
    node.key, plain = api_key_create(tenant=None, name="fuzz", scopes=["node"])
    node.save()
    return plain


@pytest.fixture
def tenant_key(tenant: Tenant) -> str:
    Tenant.objects.update(requests_per_minute=10**6, max_sessions=10**6)
    return api_key_create(tenant=tenant, name="fuzz", scopes=["relay"])[1]


@pytest.fixture
def live_session(api: APIClient) -> Callable[[], str]:
    """The id of a ready session: the last one, unless what was sent has ended it."""
    last = ""

    def give() -> str:
        nonlocal last
        if not RelaySession.objects.filter(pk=last, state=SessionState.READY).exists():
            last = api.post(SESSIONS, TWO_USERS, format="json").json()["session_id"]
        return last

    return give


@schema.parametrize()
@EXAMPLES
def test_tenant_may_send_anything(case: Any, node: RelayNode, tenant_key: str) -> None:
    case.call_and_validate(headers={"Authorization": f"token {tenant_key}"}, checks=CHECKS)


@schema_without_corners.include(path_regex="{session_id}|sessions:").parametrize()
@EXAMPLES
def test_tenant_may_send_anything_about_a_session_that_is_there(
    case: Any, node: RelayNode, tenant_key: str, live_session: Callable[[], str]
) -> None:
    session_id = live_session()
    if "session_id" in (case.path_parameters or {}):
        case.path_parameters["session_id"] = session_id
    if isinstance(case.body, dict) and "session_id" in case.body:
        case.body["session_id"] = session_id
    case.call_and_validate(headers={"Authorization": f"token {tenant_key}"}, checks=CHECKS)


@schema_without_corners.include(path_regex="nodes").parametrize()
@EXAMPLES
def test_node_may_send_anything(case: Any, node_key: str) -> None:
    case.call_and_validate(headers={"Authorization": f"Bearer {node_key}"}, checks=CHECKS)


@schema_without_corners.parametrize()
@EXAMPLES
def test_stranger_may_send_anything(case: Any) -> None:
    case.call_and_validate(checks=CHECKS)


def test_document_is_valid_and_names_every_error_shape() -> None:
    out = io.StringIO()
    call_command("spectacular", "--validate", "--fail-on-warn", stdout=out)
    found = yaml.safe_load(out.getvalue())
    for path, operations in found["paths"].items():
        for method, operation in operations.items():
            if path.endswith("/monitor"):
                continue  # its 503 is the same report as its 200
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    content = response["content"]["application/json"]["schema"]
                    assert content == {"$ref": "#/components/schemas/Error"}, (path, method, status)

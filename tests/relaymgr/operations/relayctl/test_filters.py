import pytest

from relaymgr.nodes.models import RelayNode
from relaymgr.operations.relayctl.filters import LocationUnknown, NodeUnknown, TenantUnknown, filters_check
from relaymgr.sessions.errors import SessionUnknown
from relaymgr.tenants.models import Tenant

pytestmark = pytest.mark.django_db


def test_existing_names_pass(node: RelayNode, tenant: Tenant) -> None:
    filters_check(tenant=tenant.slug, location=node.location.slug, node=node.name)


@pytest.mark.parametrize(
    ("filters", "error"),
    [
        ({"tenant": "x"}, TenantUnknown),
        ({"location": "x"}, LocationUnknown),
        ({"node": "x"}, NodeUnknown),
        ({"session": "x"}, SessionUnknown),
    ],
)
def test_unknown_names_are_errors(filters: dict[str, str], error: type[Exception]) -> None:
    with pytest.raises(error):
        filters_check(**filters)

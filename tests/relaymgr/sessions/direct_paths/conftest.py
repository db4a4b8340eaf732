"""A node, and a tenant that permits direct paths."""

from collections.abc import Callable

import pytest

from relaymgr.nodes.models import RelayNode
from relaymgr.tenants.models import Tenant
from tests.support.manager import StandIn

MakeStandIn = Callable[..., tuple[RelayNode, StandIn]]


@pytest.fixture
def stand_in(make_stand_in_node: MakeStandIn) -> StandIn:
    return make_stand_in_node()[1]


@pytest.fixture
def permissive(tenant: Tenant) -> Tenant:
    Tenant.objects.update(direct_mode="direct", direct_grace=90)
    tenant.refresh_from_db()
    return tenant

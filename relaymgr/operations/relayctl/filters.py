"""What filters name has to be there: an empty table for a misspelt tenant would read as "it has none"."""

from relaymgr.nodes.models import Location, RelayNode
from relaymgr.sessions.errors import SessionUnknown
from relaymgr.sessions.models import RelaySession
from relaymgr.tenants.models import Tenant
from web.errors import NotFound


class TenantUnknown(NotFound):
    code, message = "tenant_unknown", "There is no tenant of that name. `relayctl tenants` lists them."


class LocationUnknown(NotFound):
    code, message = "location_unknown", "There is no location of that name. `relayctl locations` lists them."


class NodeUnknown(NotFound):
    code, message = "node_unknown", "There is no node of that name. `relayctl nodes` lists them."


def tenant_get(slug: str) -> Tenant:
    """Raises TenantUnknown."""
    tenant = Tenant.objects.defer("webhook_secret").filter(slug=slug).first()
    if tenant is None:
        raise TenantUnknown
    return tenant


def filters_check(*, tenant: str = "", location: str = "", node: str = "", session: str = "") -> None:
    """What is given has to exist. Raises TenantUnknown, LocationUnknown, NodeUnknown, SessionUnknown."""
    if tenant:
        tenant_get(tenant)
    if location and not Location.objects.filter(slug=location).exists():
        raise LocationUnknown
    if node and not RelayNode.objects.filter(name=node).exists():
        raise NodeUnknown
    if session and not RelaySession.objects.filter(pk=session).exists():
        raise SessionUnknown

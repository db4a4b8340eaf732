"""Looks up what arguments and options name. An unknown name is an error: an empty table for a misspelt tenant would
read as if the tenant had none."""

from typing import Any

from relaymgr.nodes import selectors as nodes
from relaymgr.sessions import overview as sessions
from relaymgr.sessions.errors import SessionUnknown
from relaymgr.tenants.selectors import tenant_find
from web.errors import NotFound


class TenantUnknown(NotFound):
    code, message = "tenant_unknown", "There is no tenant with that name. `relayctl tenants` lists all of them."


class LocationUnknown(NotFound):
    code, message = "location_unknown", "There is no location with that name. `relayctl locations` lists all of them."


class NodeUnknown(NotFound):
    code, message = "node_unknown", "There is no node with that name. `relayctl nodes` lists all of them."


def tenant_get(slug: str) -> Any:
    """Raises TenantUnknown."""
    tenant = tenant_find(slug=slug)
    if tenant is None:
        raise TenantUnknown
    return tenant


def location_get(slug: str) -> Any:
    """Raises LocationUnknown."""
    location = nodes.location_find(slug=slug)
    if location is None:
        raise LocationUnknown
    return location


def node_get(name: str) -> Any:
    """Raises NodeUnknown."""
    node = nodes.node_find(name=name)
    if node is None:
        raise NodeUnknown
    return node


def session_get(session_id: str) -> Any:
    """Raises SessionUnknown."""
    session = sessions.session_find(session_id=session_id)
    if session is None:
        raise SessionUnknown
    return session


def filters_check(*, tenant: str = "", location: str = "", node: str = "", session: str = "") -> None:
    """Raises TenantUnknown, LocationUnknown, NodeUnknown or SessionUnknown for a name that does not exist."""
    if tenant:
        tenant_get(tenant)
    if location:
        location_get(location)
    if node:
        node_get(node)
    if session and not sessions.session_exists(session_id=session):
        raise SessionUnknown

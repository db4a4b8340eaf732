"""The manager's fixtures: what is below it is tested through it."""

from tests.support.manager import (  # noqa: F401  fixtures
    _nodes_have_time,
    _nothing_counted,
    admin_client,
    api,
    embedded_clock,
    location,
    make_node,
    make_stand_in,
    node,
    stand_in,
    tenant,
    tokyo,
)

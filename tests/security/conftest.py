"""Everybody who may call, and one of everything that a studio owns."""

from tests.matchmaker.conftest import (  # noqa: F401  fixtures
    make_profile,
    players,
    profile,
    search,
)
from tests.relaymgr.sessions.conftest import make_stand_in_node  # noqa: F401
from tests.support.manager import (  # noqa: F401  fixtures
    api,
    location,
    make_node,
    make_stand_in,
    node,
    stand_in,
    tenant,
)

from collections.abc import Callable
from typing import Any

from relaymgr.tenants.models import Tenant

from ..conftest import Relayctl


def test_tenants_with_their_live_sessions(
    session: dict[str, Any], relayctl: Relayctl, document: Callable[..., Any]
) -> None:
    (found,) = document("tenants")["tenants"]
    assert (found["name"], found["sessions"]) == ("studio", 1)
    secret = Tenant.objects.get().webhook_secret
    assert secret not in relayctl("tenants", "--json").output

"""Whether a session and its seats may have direct paths (PROTOCOL.md 12.6)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nodeapi.grants import DIRECT_MODES
from relaymgr.tenants.choices import DirectMode

NEEDS_NATIVE = "direct_needs_native"
NEEDS_NATIVE_TEXT = (
    "Direct paths need a session that admits the native dialect only. Create it with "
    '"dialects": ["native"], or leave direct_mode out.'
)
RELAY_ONLY, LEAST_STRICT = DirectMode.RELAY_ONLY.value, DirectMode.DIRECT.value


def strictest(*modes: str) -> str:
    return min(modes, key=DIRECT_MODES.index)


def session_mode(*, tenant: str, requested: str, dialects: Sequence[str]) -> str:
    """The mode of a new session. `requested` "": the tenant's. Packets of the edgegap dialect have no end-to-end
    sequence, so a session that admits it has no direct paths."""
    return RELAY_ONLY if "edgegap" in dialects else strictest(tenant, requested or tenant)


def wanted_beside_edgegap(requested: str, users: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The fields of a request that ask for direct paths. A session that admits the edgegap dialect refuses them."""
    if (requested or RELAY_ONLY) != RELAY_ONLY:
        yield "direct_mode"
    for index, user in enumerate(users):
        if user.get("direct_mode", RELAY_ONLY) != RELAY_ONLY:
            yield f"users[{index}].direct_mode"

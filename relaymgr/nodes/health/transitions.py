"""A node's state by its probes. Pure.

    joining -> ready -> suspect -> lost          an answered probe makes a node ready from any state

A node that misses a few probes may be busy or behind a bad line: it keeps its sessions, and gets new ones only if there
is no other node. A node that misses many is lost.
"""

from relaymgr.nodes.states import NodeState

SUSPECT_AFTER = 3  # probes, one each 2 s
LOST_AFTER = 15


def state_after(state: str, missed: int) -> str:
    """The state of a node that has now missed this many probes in a row; 0: it answered."""
    if missed == 0:
        return NodeState.READY.value
    if missed >= LOST_AFTER:
        return NodeState.LOST.value
    if missed >= SUSPECT_AFTER and state == NodeState.READY:
        return NodeState.SUSPECT.value
    return state

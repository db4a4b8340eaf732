"""A node's state by its probes. Pure.

    joining -> ready -> suspect -> lost          a heard probe makes any of them ready

A node that misses a few probes may be busy or behind a bad line: it gets no new sessions while others are there, and
keeps its own. One that misses many is lost.
"""

SUSPECT_AFTER = 3  # probes, one each 2 s
LOST_AFTER = 15


def state_after(state: str, missed: int) -> str:
    """The state of a node that has now missed so many probes in a row; 0: this one was heard."""
    if missed == 0:
        return "ready"
    if missed >= LOST_AFTER:
        return "lost"
    if missed >= SUSPECT_AFTER and state == "ready":
        return "suspect"
    return state

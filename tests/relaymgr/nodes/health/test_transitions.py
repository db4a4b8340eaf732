import pytest

from relaymgr.nodes.health.transitions import LOST_AFTER, SUSPECT_AFTER, state_after


@pytest.mark.parametrize("state", ["joining", "ready", "suspect", "lost"])
def test_heard_probe_makes_any_node_ready(state: str) -> None:
    assert state_after(state, 0) == "ready"


def test_ready_node_that_falls_silent_is_suspected_then_lost() -> None:
    state, seen = "ready", []
    for missed in range(1, LOST_AFTER + 3):
        state = state_after(state, missed)
        seen.append(state)
    assert seen == ["ready"] * (SUSPECT_AFTER - 1) + ["suspect"] * (LOST_AFTER - SUSPECT_AFTER) + ["lost"] * 3


def test_node_that_was_never_heard_is_joining_until_it_is_lost() -> None:
    assert state_after("joining", SUSPECT_AFTER) == "joining"
    assert state_after("joining", LOST_AFTER) == "lost"


def test_lost_node_is_not_suspected() -> None:
    assert state_after("lost", SUSPECT_AFTER) == "lost"

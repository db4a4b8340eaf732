"""Which event loop a process of the node gets."""

import asyncio

import pytest

from relaynode.supervision import event_loop


async def loop_module() -> str:
    return type(asyncio.get_running_loop()).__module__


def test_uvloop_is_used_where_it_is_installed() -> None:
    pytest.importorskip("uvloop")
    assert event_loop.run(loop_module()).partition(".")[0] == "uvloop"


def test_a_node_without_uvloop_runs_on_asyncio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_loop, "uvloop", None)
    assert event_loop.run(loop_module()).partition(".")[0] == "asyncio"


def test_what_the_program_raises_is_raised() -> None:
    async def fails() -> None:
        raise LookupError("the reason")

    with pytest.raises(LookupError, match="the reason"):
        event_loop.run(fails())

import pytest

from relaymgr.telemetry.estimation.scoring import NodeLoad


@pytest.mark.parametrize(
    ("load", "filled", "expected"),
    [
        (NodeLoad(cpu=0.0, free_seats=100, capacity=100), 0.0, 0.0),
        (NodeLoad(cpu=0.7, free_seats=100, capacity=100), 0.0, 0.7),
        (NodeLoad(cpu=0.1, free_seats=25, capacity=100), 0.75, 0.75),
        (NodeLoad(cpu=0.1, free_seats=0, capacity=100), 1.0, 1.0),
        (NodeLoad(cpu=1.3, free_seats=100, capacity=100), 0.0, 1.0),
        (NodeLoad(cpu=0.0, free_seats=0, capacity=0), 1.0, 1.0),
    ],
)
def test_load_is_whichever_gives_out_first(load: NodeLoad, filled: float, expected: float) -> None:
    assert load.filled == filled
    assert load.load == expected

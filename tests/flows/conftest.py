from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows.stack import Stack, running_stack


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Manager, worker, beat and three nodes, shared by the tests of one module."""
    folder: Path = tmp_path_factory.mktemp("stack")
    with running_stack(folder) as running:
        yield running

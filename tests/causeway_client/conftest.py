"""A real node for each file of tests, and a session on it for each test."""

from collections.abc import Iterator

import pytest

from tests.causeway_client.granted import GrantedSession
from tests.support.node_process import NodeProcess, node_process


@pytest.fixture(scope="module")
def node() -> Iterator[NodeProcess]:
    with node_process() as node:
        yield node


@pytest.fixture
def session(node: NodeProcess) -> GrantedSession:
    return GrantedSession(node)

"""Real programs through real NATs: raw punching opens what the table says, and Causeway's client what it has to."""

import os
from collections.abc import Iterator

import pytest

from natlab import programs, scenarios
from natlab.lab import Lab
from natlab.pairs import RELAY, Outcome, open_pair
from natlab.programs import Program
from natlab.relay import LabNode

pytestmark = pytest.mark.flow

LIMIT, NONE_WITHIN = 30.0, 1.0  # seconds: against hanging only, and of a round that finds nothing

PLAIN = (
    "full-cone/symmetric-random",
    "address-restricted/symmetric-sequential",
    "port-restricted/plain-linux",
    "same-lan",
    "hairpin",
    "carrier-full-cone",
    "ipv6-only",
)
NOT_PLAIN = ("port-restricted/symmetric-random", "symmetric-sequential/symmetric-sequential", "no-hairpin", "pcp")
# Port prediction and a mapped port: what punching alone does not open. Guessing takes too long for a test.
CAUSEWAY = {
    "full-cone/symmetric-random": "ipv4",
    "plain-linux/symmetric-sequential": "ipv4",
    "same-lan": "local_network",
    "ipv6-only": "ipv6",
    "pcp": "port_mapped",
    "upnp": "port_mapped",
}


@pytest.fixture(scope="module")
def node(internet: Lab) -> Iterator[LabNode]:
    with LabNode(internet.server(RELAY)) as started:
        yield started


async def outcome(internet: Lab, node: LabNode, program: Program, name: str, limit: float) -> Outcome:
    if (reason := scenarios.ALL[name].missing()) and not os.environ.get("CI"):
        pytest.skip(reason)
    with internet.scene():
        hosts = scenarios.ALL[name].build(internet)
        async with open_pair(internet, node, program, hosts) as pair:
            return await pair.play(limit)


@pytest.mark.parametrize("name", PLAIN)
async def test_raw_punching_opens_what_the_table_says(internet: Lab, node: LabNode, name: str) -> None:
    assert scenarios.ALL[name].plain
    assert (await outcome(internet, node, programs.RAW, name, LIMIT)).seconds is not None


@pytest.mark.parametrize("name", NOT_PLAIN)
async def test_raw_punching_opens_nothing_else(internet: Lab, node: LabNode, name: str) -> None:
    assert not scenarios.ALL[name].plain
    assert (await outcome(internet, node, programs.RAW, name, NONE_WITHIN)).seconds is None


@pytest.mark.parametrize("name", CAUSEWAY)
async def test_the_client_opens_more(internet: Lab, node: LabNode, name: str) -> None:
    assert scenarios.ALL[name].best
    found = await outcome(internet, node, programs.CAUSEWAY, name, LIMIT)
    assert CAUSEWAY[name] in found.paths


@pytest.mark.parametrize("program", [programs.AIOICE, programs.WEBRTC_PROGRAM], ids=lambda program: program.name)
async def test_a_comparator_plays_several_rounds_and_keeps_its_path(
    internet: Lab, node: LabNode, program: Program
) -> None:
    if program.missing() and not os.environ.get("CI"):
        pytest.skip(program.missing())
    with internet.scene():
        hosts = scenarios.ALL["port-restricted/plain-linux"].build(internet)
        async with open_pair(internet, node, program, hosts) as pair:
            for hold in (0.0, 0.5):
                played = await pair.play(LIMIT, hold)
                assert played.seconds is not None
        assert played.held


async def test_a_program_that_ends_is_an_error(internet: Lab, node: LabNode) -> None:
    with internet.scene():
        hosts = scenarios.ALL["same-lan"].build(internet)
        with pytest.raises(RuntimeError, match="has ended"):
            async with open_pair(internet, node, Program("none", "A program", ("true",)), hosts):
                pass


def test_every_scenario_has_a_name_of_its_own_and_groups_are_resolved() -> None:
    assert len(scenarios.ALL) == len(scenarios.PAIRS) + len(scenarios.OTHERS)
    assert scenarios.by_names(["pcp", "pairs", "pcp"])[0].name == "pcp"
    assert len(scenarios.by_names(["all", "pairs"])) == len(scenarios.ALL)
    with pytest.raises(KeyError):
        scenarios.by_names(["unknown"])
    assert sum(pair.plain for pair in scenarios.PAIRS) == 14
    assert sum(pair.best for pair in scenarios.PAIRS) == 18

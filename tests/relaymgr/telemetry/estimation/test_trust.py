"""Which nodes are outliers, without a database."""

import itertools

import pytest

from relaymgr.telemetry.estimation.trust import is_contradicted, outliers, tenants_against

FRANKFURT, AMSTERDAM, PARIS, LONDON = (50.1, 8.7), (52.4, 4.9), (48.9, 2.4), (51.5, -0.1)
SITES = {"fra": FRANKFURT, "ams": AMSTERDAM, "par": PARIS, "lon": LONDON}
MESH = {
    ("fra", "ams"): 7.0,
    ("fra", "par"): 9.0,
    ("fra", "lon"): 14.0,
    ("ams", "par"): 11.0,
    ("ams", "lon"): 8.0,
    ("par", "lon"): 8.0,
}


def peers(**changes):
    """What each measured; `changes`: {node: factor on all that it claims}."""
    told = {name: {} for name in SITES}
    for (one, other), ms in MESH.items():
        told[one][other] = ms * changes.get(one, 1.0)
        told[other][one] = ms * changes.get(other, 1.0)
    return told


def legs(count=10, **claims):
    """Prefixes near Sydney, 280 ms from all of Europe; `claims`: {node: what it says instead}."""
    row = dict.fromkeys(SITES, 280.0) | claims
    return [(row, None)] * count


def test_nobody_is_an_outlier_where_all_agree():
    assert outliers(legs(), peers(), SITES) == {}
    wobbly = [({name: 280.0 + 9 * index for index, name in enumerate(SITES)}, None)] * 20
    assert outliers(wobbly, peers(fra=1.4), SITES) == {}


def test_invented_legs_contradict_the_way_to_the_other_nodes():
    found = outliers(legs(fra=0.1), peers(), SITES)
    assert list(found) == ["fra"]
    assert found["fra"] == "it contradicts ams, lon, par"


def test_an_invented_mesh_contradicts_what_the_others_measured():
    assert list(outliers([], peers(lon=30.0), SITES)) == ["lon"]
    assert list(outliers([], peers(lon=0.001), SITES)) == []  # within the slack: of no use to a liar
    assert list(outliers(legs(fra=0.1), peers(fra=0.001), SITES)) == ["fra"]


def test_a_liar_cannot_have_an_honest_node_distrusted():
    assert outliers(legs(fra=0.1, par=0.1), peers(), SITES) == {}  # two of four
    for liar, honest in itertools.permutations(SITES, 2):
        assert honest not in outliers(legs(**{liar: 900.0}), peers(**{liar: 50.0}), SITES)


def test_two_nodes_cannot_tell_who_of_them_lies():
    two = {"fra": {"ams": 7.0}, "ams": {"fra": 400.0}}
    assert outliers([({"fra": 0.1, "ams": 280.0}, None)] * 20, two, SITES) == {}


def test_faster_than_light():
    sydney = (-33.9, 151.2)
    claimed = [({"fra": 20.0}, sydney)] * 3
    assert outliers(claimed, {}, SITES) == {"fra": "it contradicts the speed of light"}
    assert outliers(claimed[:2], {}, SITES) == {}
    assert outliers([({"fra": 270.0}, sydney)] * 3, {}, SITES) == {}


@pytest.mark.parametrize(
    ("claimed", "own", "contradicted"), [(0.1, 30.0, True), (20.0, 30.0, False), (0.1, 8.0, False)]
)
def test_a_leg_much_shorter_than_the_player_measured(claimed, own, contradicted):
    assert is_contradicted(claimed, own) is contradicted


def test_most_players_of_a_tenant_must_be_contradicted():
    assert tenants_against([(1, True)] * 3) == {1}
    assert tenants_against([(1, True)] * 2) == set()
    assert tenants_against([(1, True)] * 3 + [(1, False)] * 3) == set()
    assert tenants_against([(1, True)] * 5 + [(2, True)] * 3 + [(2, False)] * 2) == {1, 2}

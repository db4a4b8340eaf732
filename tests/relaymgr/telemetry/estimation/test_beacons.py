from relaymgr.telemetry.estimation.beacons import beacon_order
from relaymgr.telemetry.estimation.estimates import (
    LatencyModel,
    Player,
)
from tests.relaymgr.telemetry.estimation.test_estimates import fleet


def test_player_asked_for_few_beacons_gets_the_most_telling_ones() -> None:
    sites, model, _ = fleet()
    near = beacon_order(Player({}, {}, sites[5].latitude, sites[5].longitude), sites, model, 3)
    assert 5 in near
    stranger = beacon_order(Player(), sites, model, 3)
    assert model.coordinates is not None
    assert stranger == model.coordinates.landmarks(3)
    assert beacon_order(Player(), sites, LatencyModel(), 100) == list(range(len(sites)))

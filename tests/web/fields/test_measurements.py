from web.fields.measurements import measured


def test_only_round_trips_above_0_are_kept() -> None:
    player = {
        "ip": "192.0.2.1",
        "latencies": {"frankfurt": 12.5, "tokyo": 0, "paris": -1},
        "measurements": [{"node": "fra-1", "rtt_ms": 0.1}, {"node": "tok-1", "rtt_ms": 0}],
    }
    assert measured(player, "users[0].") == {
        "ip": "192.0.2.1",
        "latencies": {"frankfurt": 12.5},
        "measurements": [{"node": "fra-1", "rtt_ms": 0.1}],
    }
    assert player["latencies"] == {"frankfurt": 12.5, "tokyo": 0, "paris": -1}  # the argument is unchanged


def test_a_player_without_measurements_gets_none() -> None:
    assert measured({"ip": "192.0.2.1"}, "") == {"ip": "192.0.2.1"}

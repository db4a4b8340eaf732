"""Which path is chosen where, and what is said of it."""

from pathlib import Path

import pytest

from relaynode.config import NodeConfig, read_config
from relaynode.datapath import packet_path
from relaynode.datapath.packet_path import choose_packet_path, default_interfaces
from relaynode.errors import ConfigError


def config(**settings: str) -> NodeConfig:
    named = {f"CAUSEWAY_NODE_{name}": value for name, value in settings.items()}
    return read_config({"CAUSEWAY_NODE_NAME": "test", **named})


def test_the_settings_may_say_portable() -> None:
    path = choose_packet_path(config(PACKET_PATH="userspace"))
    assert (path.name, path.reason, path.front) == ("userspace", "the settings say so", None)


def test_players_on_loopback_are_served_by_sockets() -> None:
    path = choose_packet_path(config(PUBLIC_IP="127.0.0.1"))
    assert path.name == "userspace"
    assert "loopback" in path.reason


def test_a_path_that_was_asked_for_must_be_had() -> None:
    with pytest.raises(ConfigError, match="CAUSEWAY_NODE_PACKET_PATH is xdp, but players come over loopback"):
        choose_packet_path(config(PACKET_PATH="xdp", PUBLIC_IP="127.0.0.1"))


def test_an_unknown_path_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="CAUSEWAY_NODE_PACKET_PATH must be one of auto, userspace, xdp"):
        config(PACKET_PATH="fast")


def test_interfaces_are_listed_between_commas() -> None:
    assert config(XDP_INTERFACES=" eth0, eth1 ,").interfaces == ("eth0", "eth1")


def test_reasons_fit_where_the_manager_keeps_them() -> None:
    path = choose_packet_path(config(PUBLIC_IP="192.0.2.1", XDP_INTERFACES="nowhere-" + "x" * 5))
    assert path.name == "userspace"
    assert 0 < len(path.reason) <= 200


def test_interfaces_with_a_default_route_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    v4, v6 = tmp_path / "route", tmp_path / "ipv6_route"
    v4.write_text(
        "Iface\tDestination\tGateway \tFlags\n"
        "eth0\t00000000\t0100000A\t0003\n"
        "eth0\t0000000A\t00000000\t0001\n"
        "docker0\t000011AC\t00000000\t0001\n"
    )
    any6, gone = "0" * 32, "00000001 00000000 00000000 00200200"
    v6.write_text(f"{any6} 00 {any6} 00 {any6} {gone} lo\n{any6} 00 {any6} 00 {any6} {gone} eth1\n")
    monkeypatch.setattr(packet_path, "_ROUTES", v4)
    monkeypatch.setattr(packet_path, "_ROUTES6", v6)
    assert default_interfaces() == ("eth0", "eth1")
    monkeypatch.setattr(packet_path, "_ROUTES", tmp_path / "none")
    assert default_interfaces() == ("eth1",)

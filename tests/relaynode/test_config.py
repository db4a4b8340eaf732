import base64
import re
from pathlib import Path

import pytest

from relaynode.config import PortPair, read_config
from relaynode.core.relay_config import RelayConfig
from relaynode.errors import ConfigError

KEY = base64.b64encode(bytes(range(32))).decode()


def read(**settings: str):
    return read_config({f"CAUSEWAY_NODE_{name}": value for name, value in settings.items()})


def test_nothing_set_gives_a_node_that_stands_alone():
    config = read()
    assert config.is_standalone
    assert config.control_host == "127.0.0.1"
    assert config.control_url == "http://127.0.0.1:8900"
    assert config.ports[0] == PortPair(31000, 31001)
    assert config.drain_timeout == 0


def test_each_worker_gets_the_next_two_ports():
    assert read(WORKERS="3", BASE_PORT="40000").ports == (
        PortPair(40000, 40001),
        PortPair(40002, 40003),
        PortPair(40004, 40005),
    )


def test_port_pairs_can_be_listed():
    assert read(PORTS="5000:5001, 6000:7000", WORKERS="9").ports == (PortPair(5000, 5001), PortPair(6000, 7000))


def test_capacity_is_shared_among_workers_and_rounded_up():
    assert read(WORKERS="3", CAPACITY="100").seats_per_worker == 34


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({"CONTROL_HOST": "10.0.0.7"}, "http://10.0.0.7:8900"),
        ({"CONTROL_HOST": "0.0.0.0", "PUBLIC_IP": "203.0.113.7"}, "http://203.0.113.7:8900"),
        ({"CONTROL_HOST": "::", "PUBLIC_IP": "2001:db8::1"}, "http://[2001:db8::1]:8900"),
        ({"CONTROL_HOST": "0.0.0.0", "CONTROL_PORT": "9000"}, "http://127.0.0.1:9000"),
        ({"CONTROL_URL": "https://node.example.com/"}, "https://node.example.com"),
    ],
)
def test_control_url_is_where_the_manager_reaches_the_node(settings, url):
    assert read(**settings).control_url == url


def test_blank_counts_as_not_set():
    assert read(BASE_PORT=" ", JOIN_KEY="", BIND="") == read()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("NAME", "no spaces"),
        ("NAME", "x" * 51),
        ("MANAGER_URL", "manager:8000"),
        ("MANAGER_URL", "http://"),
        ("MANAGER_URL", "http://host:70000"),
        ("PUBLIC_IP", "localhost"),
        ("BIND", "eth0"),
        ("WORKERS", "0"),
        ("WORKERS", "many"),
        ("BASE_PORT", "65536"),
        ("BASE_PORT", "-1"),
        ("PORTS", "5000"),
        ("PORTS", "5000:5001,5001:5002"),
        ("CONTROL_PORT", "0"),
        ("CAPACITY", "1e3"),
        ("DRAIN_TIMEOUT", "nan"),
        ("DRAIN_TIMEOUT", "-1"),
        ("LOG_LEVEL", "loud"),
        ("LOG_FORMAT", "xml"),
        ("JOIN_KEY", "ключ"),
        ("CONTROL_KEY", "two\nlines"),
        ("TOKEN_KEYS", "7"),
        ("TOKEN_KEYS", "7:short"),
        ("TOKEN_KEYS", f"4294967296:{KEY}"),
        ("TOKEN_KEYS", f"²:{KEY}"),
    ],
)
def test_a_bad_value_is_refused_by_the_name_of_its_variable(variable, value):
    with pytest.raises(ConfigError, match=f"^CAUSEWAY_NODE_{variable} ") as refused:
        read(**{variable: value})
    assert "\n" not in str(refused.value)


def test_ports_beyond_the_last_are_refused():
    with pytest.raises(ConfigError, match="BASE_PORT leaves no room"):
        read(BASE_PORT="65533", WORKERS="2")


def test_a_manager_needs_to_know_the_public_address():
    with pytest.raises(ConfigError, match="PUBLIC_IP"):
        read(MANAGER_URL="http://127.0.0.1:8000", JOIN_KEY="k")


def test_a_secret_is_also_read_from_a_file(tmp_path: Path):
    (tmp_path / "key").write_text("from-file\n")
    assert read(JOIN_KEY="from-environment", JOIN_KEY_FILE=str(tmp_path / "key")).join_key == "from-file"


def test_a_secret_file_that_is_missing_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="CAUSEWAY_NODE_JOIN_KEY_FILE cannot be read"):
        read(JOIN_KEY_FILE=str(tmp_path / "none"))


def test_token_keys_are_ids_and_32_bytes():
    assert read(TOKEN_KEYS=f"7:{KEY}, 8:{KEY}").token_keys == {7: bytes(range(32)), 8: bytes(range(32))}


def test_no_key_shows_in_repr_or_refusal():
    config = read(JOIN_KEY="secret-1", CONTROL_KEY="secret-2", TOKEN_KEYS=f"7:{KEY}")
    for secret in ("secret-1", "secret-2", KEY, repr(bytes(range(32)))):
        assert secret not in repr(config)
    with pytest.raises(ConfigError) as refused:
        read(TOKEN_KEYS=f"x:{KEY}")
    assert KEY not in str(refused.value)


def test_state_lies_in_a_folder_of_the_nodes_own():
    assert read(NAME="fra-1").state_dir == Path("var/nodes/fra-1")
    environment = {"CAUSEWAY_STATE_DIR": "/state", "CAUSEWAY_NODE_NAME": "fra-1"}
    assert read_config(environment).state_dir == Path("/state/nodes/fra-1")
    assert read_config(environment | {"CAUSEWAY_NODE_STATE_DIR": "/else"}).state_dir == Path("/else")


def test_limits_are_settings_whose_documented_defaults_are_the_cores() -> None:
    page = (Path(__file__).parents[2] / "docs" / "settings.md").read_text()
    config = read_config({"CAUSEWAY_NODE_PROBES_PER_SOURCE": "7", "CAUSEWAY_NODE_NAME": "n"})
    assert config.limits["probes_per_source"] == 7
    defaults = read_config({"CAUSEWAY_NODE_NAME": "n"}).limits
    assert RelayConfig(**defaults) == RelayConfig()
    for name, default in defaults.items():
        assert re.search(rf"`CAUSEWAY_NODE_{name.upper()}` \| [^|]+ \| `{default}` \|", page), name


def test_a_node_has_an_address_of_each_family():
    config = read(PUBLIC_IP="203.0.113.7", PUBLIC_IPV6="2001:db8::7")
    assert (config.public_ip, config.public_ipv6) == ("203.0.113.7", "2001:db8::7")


@pytest.mark.parametrize(
    ("variable", "settings"),
    [
        ("PUBLIC_IPV6", {"PUBLIC_IP": "203.0.113.7", "PUBLIC_IPV6": "203.0.113.8"}),
        ("PUBLIC_IPV6", {"PUBLIC_IP": "2001:db8::1", "PUBLIC_IPV6": "2001:db8::2"}),
        ("PUBLIC_IPV6", {"PUBLIC_IPV6": "2001:db8::2"}),
        ("BIND", {"PUBLIC_IP": "203.0.113.7", "PUBLIC_IPV6": "2001:db8::7", "BIND": "0.0.0.0"}),
        ("BIND", {"PUBLIC_IP": "203.0.113.7", "BIND": "2001:db8::7"}),
        ("BIND", {"PUBLIC_IP": "2001:db8::7", "BIND": "0.0.0.0"}),
    ],
)
def test_addresses_at_which_nobody_would_be_served_are_refused(variable, settings):
    with pytest.raises(ConfigError, match=f"CAUSEWAY_NODE_{variable}"):
        read(**settings)


TLS = {"TLS_CERTIFICATE": "/cert.pem", "TLS_KEY": "/key.pem"}


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({}, ""),
        ({"PUBLIC_HOST": "a.example.com"}, ""),
        ({"PUBLIC_HOST": "a.example.com", "WEBSOCKET_PORT": "443", **TLS}, "wss://a.example.com"),
        ({"PUBLIC_HOST": "a.example.com", "WEBSOCKET_PORT": "8443", **TLS}, "wss://a.example.com:8443"),
        ({"WEBSOCKET_PORT": "443", **TLS}, ""),  # no name, for which there would be a certificate
        ({"PUBLIC_HOST": "a.example.com", "WEBSOCKET_PORT": "8443"}, ""),  # nothing is known of the proxy
        ({"WEBSOCKET_PORT": "8443", "WEBSOCKET_URL": "wss://b.example.com/"}, "wss://b.example.com"),
    ],
)
def test_websocket_url_is_that_of_the_certificates_name_unless_it_is_set(settings, url):
    assert read(**settings).websocket_url == url


@pytest.mark.parametrize(
    ("variable", "settings"),
    [
        ("WEBSOCKET_URL", {"WEBSOCKET_PORT": "443", "WEBSOCKET_URL": "https://a.example.com"}),
        ("WEBSOCKET_URL", {"WEBSOCKET_PORT": "443", "WEBSOCKET_URL": "wss://a.example.com/path"}),
        ("WEBSOCKET_PORT", {"WEBSOCKET_URL": "wss://a.example.com"}),
        ("TRUSTED_PROXIES", {"TRUSTED_PROXIES": "10.0.0.1/8"}),
        ("TRUSTED_PROXIES", {"TRUSTED_PROXIES": "0.0.0.0/0"}),
        ("TRUSTED_PROXIES", {"TRUSTED_PROXIES": "::/0"}),
    ],
)
def test_websockets_that_could_not_work_are_refused(variable, settings):
    with pytest.raises(ConfigError, match=f"CAUSEWAY_NODE_{variable}"):
        read(**settings)


def test_websockets_listen_where_the_udp_ports_do_unless_they_have_an_address():
    assert read(BIND="192.0.2.1").websocket_bind == "192.0.2.1"
    assert read(BIND="192.0.2.1", WEBSOCKET_BIND="127.0.0.1").websocket_bind == "127.0.0.1"

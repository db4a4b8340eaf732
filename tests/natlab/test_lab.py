import struct

import pytest

from natlab import kinds, lab
from natlab.lab import Lab
from natlab.port_mapping import PROGRAM, Protocols
from tests.natlab.conftest import Udp, needs

pytestmark = pytest.mark.flow

NAT_PMP_PORT = 5351


def test_a_host_opens_a_port_of_its_router_by_nat_pmp(internet: Lab) -> None:
    needs(PROGRAM)
    with internet.scene():
        home = internet.router("home", kinds.RANDOM, port_mapping=Protocols.PCP)
        host, outside = home.host("alice"), Udp(internet.server("server"), 7000)
        inside = Udp(host, 5000)
        outside.send(b"before", (home.address, 5000))
        assert inside.is_silent(0.5)
        inside.send(struct.pack(">BBHHHI", 0, 1, 0, 5000, 5000, 7200), (home.inner_address, NAT_PMP_PORT))
        answer, _ = inside.receive()
        assert struct.unpack(">BBHIHHI", answer)[2] == 0
        outside.send(b"after", (home.address, 5000))
        assert inside.receive()[0] == b"after"
        inside.close()
        outside.close()


def test_a_router_with_upnp_answers_a_search(internet: Lab) -> None:
    needs(PROGRAM)
    with internet.scene():
        host = internet.router("home", kinds.PLAIN_LINUX, port_mapping=Protocols.UPNP).host("alice")
        inside = Udp(host)
        search = (
            'M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: "ssdp:discover"\r\nMX: 1\r\n'
            "ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n\r\n"
        )
        inside.send(search.encode(), ("239.255.255.250", 1900))
        assert b"200 OK" in inside.receive()[0]
        inside.close()


def test_homes_have_the_same_private_addresses_and_carriers_shared_ones(internet: Lab) -> None:
    with internet.scene():
        carrier = internet.router("carrier", kinds.FULL_CONE, inside=lab.CARRIER)
        homes = [internet.router(name, kinds.PLAIN_LINUX, behind=carrier) for name in ("one", "two")]
        assert [home.host(f"host-{home.name}").address for home in homes] == ["192.168.1.10"] * 2
        assert [home.address for home in homes] == ["100.64.0.10", "100.64.0.11"]
        assert carrier.address.startswith("44.128.")


def test_what_does_not_fit_together_is_refused(internet: Lab) -> None:
    with internet.scene():
        with pytest.raises(ValueError, match="port mapping"):
            internet.router("home", kinds.FULL_CONE, port_mapping=Protocols.PCP)
        with pytest.raises(ValueError, match="IPv6"):
            internet.router("home", kinds.FULL_CONE, ipv6=True, behind=internet.router("carrier", kinds.FULL_CONE))


def test_a_dual_stack_host_has_an_address_of_each_family(internet: Lab) -> None:
    with internet.scene():
        host = internet.router("home", kinds.PLAIN_LINUX, ipv6=True).host("alice")
        assert [":" in address for address in host.addresses] == [False, True]

"""miniupnpd in the namespace of a router: PCP, NAT-PMP and UPnP, by which hosts open ports of the router themselves."""

import subprocess
import tempfile
import time
from enum import Enum
from pathlib import Path

from natlab.kinds import WAN
from natlab.namespaces import Namespace

PROGRAM, PACKAGE = "miniupnpd", "miniupnpd-nftables"
STARTS_WITHIN = 20.0  # seconds, against hanging only
_RULES = """
table inet miniupnpd {
    chain forward { type filter hook forward priority filter; jump forward_mapped; }
    chain prerouting { type nat hook prerouting priority dstnat; jump prerouting_mapped; }
    chain postrouting { type nat hook postrouting priority srcnat - 1; jump postrouting_mapped; }
    chain forward_mapped {}
    chain prerouting_mapped {}
    chain postrouting_mapped {}
}
"""


class Protocols(Enum):
    PCP = "PCP and NAT-PMP"
    UPNP = "UPnP"


class PortMapper:
    """A running miniupnpd on the inner interface of a router. Raises OSError if it does not start."""

    def __init__(self, namespace: Namespace, inner_interface: str, protocols: Protocols) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="natlab-")
        self._log = Path(self._folder.name, "log")
        namespace.nft(_RULES)
        configuration = Path(self._folder.name, "configuration")
        configuration.write_text(_configuration(inner_interface, protocols))
        command = [PROGRAM, "-d", "-f", str(configuration), "-P", str(Path(self._folder.name, "pid"))]
        with self._log.open("wb") as log:
            self._process = namespace.call(lambda: subprocess.Popen(command, stdout=log, stderr=log))
        self._wait("Listening for NAT-PMP/PCP" if protocols is Protocols.PCP else "HTTP listening")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()

    def _wait(self, line: str) -> None:
        deadline = time.monotonic() + STARTS_WITHIN
        while line not in (log := self._log.read_text(errors="replace")):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise OSError(f"{PROGRAM} did not start: {log[-500:]}")
            time.sleep(0.01)


def _configuration(inner_interface: str, protocols: Protocols) -> str:
    return f"""
ext_ifname={WAN}
listening_ip={inner_interface}
port=0
enable_natpmp={"yes" if protocols is Protocols.PCP else "no"}
enable_upnp={"yes" if protocols is Protocols.UPNP else "no"}
secure_mode=yes
uuid=00000000-0000-0000-0000-000000000001
upnp_table_name=miniupnpd
upnp_nat_table_name=miniupnpd
upnp_forward_chain=forward_mapped
upnp_nat_chain=prerouting_mapped
upnp_nat_postrouting_chain=postrouting_mapped
allow 1024-65535 0.0.0.0/0 1024-65535
"""

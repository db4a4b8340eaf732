"""IP addresses in requests."""

import ipaddress
from typing import Any

from rest_framework import serializers


class AddressField(serializers.IPAddressField):
    """The address of one host in canonical form. An IPv4-mapped address (::ffff:192.0.2.1) becomes an IPv4 address."""

    default_error_messages = {
        "not_a_host": "{reason} Give the address under which the host reaches the internet, or leave it out.",
    }

    def to_internal_value(self, data: Any) -> str:
        try:
            address = ipaddress.ip_address(super().to_internal_value(data))
        except ValueError:
            self.fail("invalid")
        address = getattr(address, "ipv4_mapped", None) or address
        if reason := _reason_not_a_host(address):
            self.fail("not_a_host", reason=reason)
        return str(address)


def _reason_not_a_host(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    if getattr(address, "scope_id", None):
        return "An address with a zone is valid on one machine only."
    if address.is_unspecified:
        return "This is the unspecified address."
    if address.is_multicast or str(address) == "255.255.255.255":
        return "This is a multicast or broadcast address."
    if address.is_link_local:
        return "This address is valid on one link only."
    return ""

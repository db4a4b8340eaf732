"""A checker that knows PROTOCOL.md and nothing of our code: it reads the document's tables and decodes by them."""

import hashlib
import hmac
import re
from pathlib import Path
from typing import Any

from siphash24 import siphash24

TEXT = (Path(__file__).parents[3] / "transports/protocol/PROTOCOL.md").read_text()

# "| 2 | player nonce bytes 16 | echoed |": offset, name, width; what follows the width is remarks.
_FIELD = re.compile(r"(?P<name>[A-Za-z][A-Za-z -]*?) (?:u(?P<bits>8|16|32|64)|bytes (?P<size>\d+|length))\b")
_WIDTHS = {"8": 1, "16": 2, "32": 4, "64": 8}


def section(heading: str) -> str:
    """The text from a heading that starts with `heading` to the next one."""
    found = re.search(rf"^#+ {re.escape(heading)}.*?$(.*?)(?=^#|\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found, heading
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The cells of every table row, without header and rule."""
    lines = re.findall(r"^\|(.*)\|\s*$", text, re.MULTILINE)
    cells = [[cell.strip() for cell in line.split("|")] for line in lines]
    return [row for row in cells if not set("".join(row)) <= set("-: ")]


def layout(heading: str, column: int = 1) -> list[tuple[str, str, str, bool]]:
    """(offset, name, width, is a number) of each field in the table under a heading, in order."""
    fields = []
    for row in rows(section(heading)):
        field = _FIELD.match(row[1] if row[column] == "echoed" else row[column])
        if field:
            name = field["name"].strip().lower().replace(" ", "_").replace("-", "_")
            width = field["size"] or str(_WIDTHS[field["bits"]])
            fields.append((row[0], name, width, field["bits"] is not None))
    return fields


def decode(data: bytes, fields: list[tuple[str, str, str, bool]]) -> dict[str, Any]:
    """By offset and width; a width or an offset may name an earlier field, and "n" is the datagram's length."""
    found: dict[str, Any] = {}
    for offset, name, width, is_number in fields:
        start = _amount(offset, found, data)
        value = data[start : start + _amount(width, found, data)]
        assert len(value) == _amount(width, found, data), f"{name} lies beyond the end"
        found[name] = int.from_bytes(value, "little") if is_number else value.hex()
    return found


def size_of(fields: list[tuple[str, str, str, bool]]) -> int:
    """Bytes of a packet whose fields have fixed places."""
    offset, _, width, _ = fields[-1]
    return int(offset) + int(width)


def stated_size(heading: str) -> int:
    """The "(126 bytes)" of a heading."""
    found = re.search(rf"^#+ {re.escape(heading)}.*\((\d+) bytes\)", TEXT, re.MULTILINE)
    assert found, heading
    return int(found[1])


def mac(key: bytes, message: bytes) -> bytes:
    """HMAC(...)[:16], section 1."""
    return hmac.new(key, message, hashlib.sha256).digest()[:16]


def packet_key(direction: str, seat_key: bytes, player_nonce: bytes, node_nonce: bytes) -> bytes:
    """Section 4, by the formula as it is printed there."""
    text = re.search(rf'{direction} key +?= HMAC\(seat key, "(.*?)"', section("4."))
    assert text
    return mac(seat_key, text[1].encode("ascii") + player_nonce + node_nonce)


def tag(key: bytes, packet: bytes, sequence: int) -> bytes:
    """Section 4: the packet without its last 8 bytes, then the high half of the sequence."""
    return bytes(siphash24(packet[:-8] + (sequence >> 32).to_bytes(4, "little"), key=key).digest())


def pair_secret(peer_key: bytes, higher_seat: int) -> bytes:
    """Section 12.1."""
    return mac(peer_key, _label("12.1") + bytes((higher_seat,)))


def rendezvous_tag(secret: bytes, sender: int, receiver: int, body: bytes) -> bytes:
    """Section 12.2."""
    return mac(secret, _label("12.2") + bytes((sender, receiver)) + body)[:8]


def direct_key(secret: bytes, sender: int, receiver: int, nonces: bytes) -> bytes:
    """Section 12.3; `nonces`: that of the lower seat, then that of the higher one."""
    return mac(secret, _label("12.3") + bytes((sender, receiver)) + nonces)


def end_of_rendezvous(body: bytes) -> int:
    """Section 12.2: the fields of fixed width, the candidates, the certificate, the tag."""
    at = 33
    for _ in range(body[32]):
        at += 1 + {4: 4, 6: 16}[body[at] & 15] + 2
    return at + (32 if body[1] & 1 else 0) + 8


def _label(heading: str) -> bytes:
    text = re.search(r'HMAC\(.*?"(causeway v1 .*?)"', section(heading))
    assert text
    return text[1].encode("ascii")


def _amount(text: str, found: dict[str, Any], data: bytes) -> int:
    names = {name: value for name, value in found.items() if isinstance(value, int)} | {"n": len(data)}
    total, sign = 0, 1
    for part in re.findall(r"[+-]|\w+", text):
        if part in "+-":
            sign = 1 if part == "+" else -1
        else:
            total += sign * (int(part) if part.isdigit() else names[part])
    return total


def offered_seat_key(offer_key: bytes, token: bytes) -> bytes:
    """Section 14.1."""
    return hmac.new(offer_key, b"causeway v1 offer" + token[5:17], hashlib.sha256).digest()

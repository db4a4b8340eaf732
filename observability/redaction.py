"""Removes secrets and addresses from logs. Each log line of each process passes through it, with its named values.

Secrets are our own keys (`cw_...`), Authorization headers, tokens and keys that have such a name, and passwords, also
inside URLs. Addresses are personal data of players, so none is shown above DEBUG. An address inside a URL is shown,
because it is that of one of the operator's machines.
"""

import functools
import ipaddress
import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "[hidden]"

# Names of secret values: keys of structured values, and names in text, as in `name=...` and `"name": ...`.
_HIDDEN_NAMES = (
    r"[a-z_-]*(?:token|password|passwd|secret|authorization|cookie|sessionid)s?"
    r"|(?:[a-z0-9]+[_-])*(?:token|api|control|join|matchmaker|metrics|node|offer|private|seat|secret|service)[_-]?keys?"
)
_ADDRESS_NAME = r"(?:(?:client|player|user|remote|peer|public|source)_)?(?:ip|addr|address)(?:es)?"

_is_secret_name = re.compile(_HIDDEN_NAMES, re.IGNORECASE).fullmatch
_is_address_name = re.compile(_ADDRESS_NAME, re.IGNORECASE).fullmatch

# Every text that one of the patterns below could match contains one of these words. This check is fast for most lines.
_SUSPECT = re.compile(r"(?i)cw_|token|passw|secret|authorization|cookie|sessionid|key|bearer|basic|://")
_OUR_KEY = re.compile(r"\bcw_([0-9a-f]{12})_[A-Za-z0-9_-]+")
_HEADER = re.compile(
    r"(?i)\b((?:proxy-)?authorization[\"']?\s*[:=]\s*(?:b?[\"'])?)(?:(?:token|bearer|basic)\s+)*[^\s\"',;}]+"
)
_CREDENTIAL = re.compile(r"(?i)\b(bearer|basic|token)\s+(?=\S*[0-9_+/=-])[A-Za-z0-9._~+/=-]{16,}")
_NAMED = re.compile(
    rf"(?i)(?<![a-z0-9_-])((?:{_HIDDEN_NAMES})(?:[\"']\s*:\s*|\s*=\s*))(?:\"[^\"]*\"|'[^']*'|[^\s\"',;&)\]}}]+)"
)
_URL_PASSWORD = re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://[^\s/:@\"']*):[^\s/\"']*@")
_IPV4 = re.compile(r"(?<![\w./@:-])(?:::ffff:)?(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)")
_IPV6 = re.compile(
    r"(?<![\w/.@:])(?<![/@]\[)\[?((?=[0-9a-f.]*:[0-9a-f.]*:)[0-9a-f:.]*[0-9a-f:])(?:%\w+)?\]?(?!\w)", re.IGNORECASE
)


def redacted(text: str, *, addresses: bool = False) -> str:
    """The text without secrets. Addresses are removed, too, unless `addresses` is true."""
    if _SUSPECT.search(text):
        text = _without_secrets(text)
    return text if addresses else _without_addresses(text)


def _without_secrets(text: str) -> str:
    text = _OUR_KEY.sub(rf"cw_\1_{HIDDEN}", text)
    text = _HEADER.sub(rf"\1{HIDDEN}", text)
    text = _CREDENTIAL.sub(rf"\1 {HIDDEN}", text)
    text = _NAMED.sub(rf"\1{HIDDEN}", text)
    if "://" in text:
        text = _URL_PASSWORD.sub(rf"\1:{HIDDEN}@", text)
    return text


def redacted_value(value: Any, *, addresses: bool = False, name: str = "") -> Any:
    """The same for the value named `name` and for all values that it contains."""
    if name and value not in (None, "") and _must_hide(name, addresses):
        return HIDDEN
    if isinstance(value, str):
        return redacted(value, addresses=addresses)
    if isinstance(value, Mapping):
        return {key: redacted_value(item, addresses=addresses, name=str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redacted_value(item, addresses=addresses) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return redacted(value.decode("latin-1") if isinstance(value, bytes) else str(value), addresses=addresses)


@functools.lru_cache(maxsize=1024)
def _must_hide(name: str, addresses: bool) -> bool:
    return bool(_is_secret_name(name) or (not addresses and _is_address_name(name)))


def _without_addresses(text: str) -> str:
    if "." in text:
        text = _IPV4.sub(lambda found: HIDDEN if _is_address(found[0]) else found[0], text)
    if text.count(":") > 1:
        text = _IPV6.sub(lambda found: HIDDEN if _is_address(found[1]) else found[0], text)
    return text


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return text != "::"  # the wildcard address, on which servers listen

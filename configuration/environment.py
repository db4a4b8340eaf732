"""Typed readers of environment variables.

Each call reads one variable, checks it, and records it in `EnvironmentReader.variables`, from which docs/settings.md is
generated. A variable that is absent or blank counts as not set. Error messages never contain a value, which may be a
password.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn
from urllib.parse import urlsplit

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_FLAGS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


class SettingError(Exception):
    """A setting is missing or has an unusable value."""

    def __init__(self, variable: str, reason: str) -> None:
        super().__init__(f"{variable} {reason}")
        self.variable = variable
        self.reason = reason


class Variable(NamedTuple):
    """A row of docs/settings.md."""

    section: str
    read_by: str
    name: str
    kind: str
    default: str
    help: str
    is_secret: bool


def _raise(error: SettingError) -> NoReturn:
    raise error


class EnvironmentReader:
    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        prefix: str = "",
        on_error: Callable[[SettingError], NoReturn] = _raise,
    ) -> None:
        """`prefix` is put before every name. `on_error` must not return; by default it raises the error."""
        self.variables: dict[str, Variable] = {}
        self._environment = environment
        self._prefix = prefix
        self._on_error = on_error
        self._section = self._read_by = ""

    def section(self, title: str, *, read_by: str) -> None:
        """Start a section of docs/settings.md: the variables read from now on belong to it."""
        self._section, self._read_by = title, read_by

    def fail(self, name: str, reason: str) -> NoReturn:
        """Reject the value of a variable. `reason` continues a sentence that starts with the variable's name."""
        self._on_error(SettingError(self._prefix + name, reason))

    def is_set(self, name: str) -> bool:
        return bool(self._value(name))

    def text(self, name: str, default: str = "", help: str = "", *, kind: str = "text") -> str:
        self._record(name, kind, default, help)
        return self._value(name) or default

    def secret(self, name: str, help: str = "") -> str:
        """The variable's value, or the content of the file that NAME_FILE names."""
        self._record(name, "text", "", help, is_secret=True)
        path = self._value(f"{name}_FILE")
        if not path:
            return self._value(name)
        try:
            return Path(path).read_text(encoding="utf-8").strip()
        except OSError as error:
            self.fail(f"{name}_FILE", f"cannot be read: {error.strerror}")
        except UnicodeDecodeError:
            self.fail(f"{name}_FILE", "cannot be read: the file is not UTF-8 text")

    def flag(self, name: str, default: bool, help: str = "") -> bool:
        self._record(name, "on or off", "on" if default else "off", help)
        word = self._value(name).lower()
        if not word:
            return default
        if word not in _FLAGS:
            self.fail(name, f"must be one of {', '.join(_FLAGS)}")
        return _FLAGS[word]

    def whole(self, name: str, default: int, low: int, high: int, help: str = "") -> int:
        kind = f"whole number from {low} to {high}"
        self._record(name, kind, str(default), help)
        text = self._value(name)
        if not text:
            return default
        if not re.fullmatch(r"[0-9]{1,15}", text) or not low <= int(text) <= high:
            self.fail(name, f"must be a {kind}")
        return int(text)

    def number(self, name: str, default: float, low: float, high: float, help: str = "") -> float:
        kind = f"number from {low:.15g} to {high:.15g}"
        self._record(name, kind, f"{default:.15g}", help)
        text = self._value(name)
        try:
            value = float(text) if text else default
        except ValueError:
            value = float("nan")
        if not low <= value <= high:  # also true for NaN
            self.fail(name, f"must be a {kind}")
        return value

    def choice(self, name: str, default: str, choices: Sequence[str], help: str = "") -> str:
        """Upper and lower case do not matter; the result is spelled as in `choices`."""
        kind = f"one of {', '.join(choices)}"
        self._record(name, kind, default, help)
        value = self._value(name) or default
        by_lower = {choice.lower(): choice for choice in choices}
        if value.lower() not in by_lower:
            self.fail(name, f"must be {kind}")
        return by_lower[value.lower()]

    def words(self, name: str, default: str = "", help: str = "") -> list[str]:
        self._record(name, "comma-separated list", default, help)
        return [word.strip() for word in (self._value(name) or default).split(",") if word.strip()]

    def networks(self, name: str, help: str = "") -> list[Network]:
        try:
            return [ipaddress.ip_network(word) for word in self.words(name, help=help)]
        except ValueError:
            self.fail(name, "must be a list of networks such as 10.0.0.0/8,fd00::/8")

    def ip(self, name: str, help: str = "") -> str:
        """In canonical form; empty when the variable is not set."""
        text = self.text(name, help=help, kind="IP address")
        try:
            return str(ipaddress.ip_address(text)) if text else ""
        except ValueError:
            self.fail(name, "must be an IP address")

    def url(self, name: str, help: str = "") -> str:
        """Without a trailing slash; empty when the variable is not set."""
        text = self.text(name, help=help, kind="URL").rstrip("/")
        if text and not _is_http_url(text):
            self.fail(name, "must be an http:// or https:// URL")
        return text

    def _value(self, name: str) -> str:
        return self._environment.get(self._prefix + name, "").strip()

    def _record(self, name: str, kind: str, default: str, help: str, *, is_secret: bool = False) -> None:
        variable = Variable(self._section, self._read_by, self._prefix + name, kind, default, help, is_secret)
        self.variables.setdefault(self._prefix + name, variable)


def _is_http_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False

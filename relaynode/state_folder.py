"""What a node keeps on disk: its keys, and a snapshot of what it serves. Readable by its user only.

Files are replaced whole and only after the new one is safely on the disk, so a crash leaves the old or the new.
What cannot be read is set aside beside it (`.unreadable`), never overwritten, and the node starts without.
"""

import base64
import itertools
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from .config import MAX_WORKERS, is_key_text
from .errors import StateUnusable

log = logging.getLogger(__name__)

FORMAT = 1

T = TypeVar("T")

State = dict[str, Any]
"""What there is to remember of one session: its name under "session", the rest is the core's."""


@dataclass(frozen=True, slots=True)
class NodeKeys:
    """The keys got at join, later ones with the grants. See docs/node-api.md for who presents which."""

    control_key: str = field(repr=False)
    node_key: str = field(repr=False, default="")
    token_keys: Mapping[int, bytes] = field(repr=False, default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "node_key": self.node_key,
            "control_key": self.control_key,
            "token_keys": [{"id": i, "key": base64.b64encode(key).decode()} for i, key in self.token_keys.items()],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "NodeKeys":
        """Raises ValueError, which repeats nothing of what was given."""
        control_key, node_key = data.get("control_key"), data.get("node_key")
        if not (isinstance(control_key, str) and isinstance(node_key, str) and control_key):
            raise ValueError("control_key and node_key must be texts")
        if not is_key_text(control_key + node_key):
            raise ValueError("control_key and node_key hold characters that no key has")
        return cls(control_key=control_key, node_key=node_key, token_keys=token_keys_from_json(data.get("token_keys")))


def token_keys_from_json(data: object) -> dict[int, bytes]:
    """From [{"id", "key": base64 of 32 bytes}]. Raises ValueError, which repeats nothing of what was given."""
    if not isinstance(data, list):
        raise ValueError("token_keys must be a list")
    try:
        keys = {item["id"]: base64.b64decode(item["key"], validate=True) for item in data}
    except (TypeError, KeyError, ValueError):  # binascii.Error is a ValueError
        raise ValueError("token_keys must be a list of id and key") from None
    for number, key in keys.items():
        if type(number) is not int or not 0 <= number < 1 << 32 or len(key) != 32:
            raise ValueError("token_keys must have 32-bit ids and 32-byte keys")
    return keys


class StateFolder:
    """Raises StateUnusable when the folder cannot be made or written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.chmod(0o700)
        except OSError as error:
            raise StateUnusable(f"state folder {path}: {error.strerror}") from None
        if not os.access(path, os.R_OK | os.W_OK | os.X_OK):  # seen now, before a join uses up its key
            raise StateUnusable(f"state folder {path}: cannot be written")

    def read_keys(self) -> NodeKeys | None:
        return self._read("keys.json", _keys)

    def write_keys(self, keys: NodeKeys) -> None:
        self._write("keys.json", [{"format": FORMAT, **keys.to_json()}])

    def read_sessions(self) -> list[list[State]]:
        """Of each worker what it served. Empty when there is no snapshot."""
        return self._read("sessions.jsonl", _snapshot) or []

    def write_sessions(self, workers: Sequence[Sequence[State]]) -> None:
        # A line for each session: encoding all at once would hold up the other threads.
        states = ([worker, state] for worker, states in enumerate(workers) for state in states)
        head = {"format": FORMAT, "workers": len(workers), "sessions": sum(map(len, workers))}
        self._write("sessions.jsonl", itertools.chain([head], states))

    def _read(self, name: str, parse: Callable[[list[Any]], T]) -> T | None:
        """The file's lines, parsed. None when there is no such file, or none that makes sense."""
        try:
            lines = (self._path / name).read_bytes().splitlines()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateUnusable(f"state folder {self._path}: {name}: {error.strerror}") from None
        try:
            return parse([_json(line) for line in lines])
        except ValueError as error:
            log.warning("%s is unusable (%s): set aside as %s.unreadable", self._path / name, error, name)
            (self._path / name).replace(self._path / f"{name}.unreadable")
            return None

    def _write(self, name: str, lines: Iterable[object]) -> None:
        target = self._path / name
        temporary = target.with_suffix(".new")
        try:
            # Made with its mode, so that there is no moment at which others could open it.
            temporary.unlink(missing_ok=True)
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.writelines(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
            self._sync_folder()
        except OSError as error:
            raise StateUnusable(f"state folder {self._path}: {name}: {error.strerror}") from None

    def _sync_folder(self) -> None:
        """So that the renaming survives a power cut, too."""
        folder = os.open(self._path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _json(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None


def _head(lines: list[Any]) -> dict[str, Any]:
    if not lines or not isinstance(lines[0], dict) or lines[0].get("format") != FORMAT:
        raise ValueError("another program or version wrote it")
    return lines[0]


def _keys(lines: list[Any]) -> NodeKeys:
    return NodeKeys.from_json(_head(lines))


def _snapshot(lines: list[Any]) -> list[list[State]]:
    head, *entries = _head(lines), *lines[1:]
    count = head.get("workers")
    if type(count) is not int or not 0 <= count <= MAX_WORKERS or head.get("sessions") != len(entries):
        raise ValueError("it is not a whole snapshot")
    workers: list[list[State]] = [[] for _ in range(count)]
    for entry in entries:
        match entry:
            case [int(worker), {"session": str()} as state] if 0 <= worker < count:
                workers[worker].append(state)
            case _:
                raise ValueError("it is not a snapshot of sessions")
    return workers

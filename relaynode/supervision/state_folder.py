"""The state folder of a node: its keys, and a snapshot of its sessions. Readable by its user only.

A file is replaced only after its successor is safely on the disk, so a crash leaves the old file or the new one.
Between two complete snapshots, a line with its own checksum is appended for each change. A file that cannot be read is
renamed (`.unreadable`), never overwritten, and the node starts without it.
"""

import base64
import contextlib
import fcntl
import json
import logging
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nodeapi.grants import MAX_WORKERS, TIME_LIMIT
from nodeapi.ids import is_session_id
from nodeapi.membership import TokenKey
from nodeapi.strict_json import InvalidDocument, read_document, read_json

from ..config import is_key_text
from ..errors import StateUnusable

log = logging.getLogger(__name__)

FORMAT = 1
KEYS, RESERVE, SNAPSHOT = "keys.json", "keys.reserve", "sessions.jsonl"
KEYS_SIZE = 16_384  # bytes; more than keys take

State = dict[str, Any]
"""The state of one session: its name under "session", whether it has "ended", and values that only the core reads."""


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
    try:
        return {item.id: item.key for item in read_document(data, list[TokenKey])}
    except InvalidDocument as error:
        raise ValueError(f"token_keys{error.field}: no list of keys") from None


@dataclass(slots=True)
class Snapshot:
    """What a node served: of each worker the states of its sessions, and when the manager made the last list of
    sessions that was taken over, in seconds since 1970."""

    workers: list[dict[str, State]] = field(default_factory=list)
    listed_at: float = 0.0

    def records(self) -> Iterator[object]:
        """The records from which `apply` rebuilds it."""
        yield {"listed_at": self.listed_at}
        for worker, states in enumerate(self.workers):
            for state in states.values():
                yield [worker, state]

    def apply(self, record: object) -> None:
        """One change: `[worker, state]`, `[worker, name]` of a forgotten session, or `{"listed_at"}`.

        Raises ValueError for anything else, without a change."""
        match record:
            case [int(worker), dict(state)] if 0 <= worker < MAX_WORKERS and is_state(state):
                states = self._of_worker(worker)
                states.pop(state["session"], None)  # the order is that of the last changes
                states[state["session"]] = state
            case [int(worker), str(name)] if 0 <= worker < MAX_WORKERS:
                self._of_worker(worker).pop(name, None)
            case {"listed_at": int() | float() as at} if is_time(at):
                self.listed_at = at
            case _:
                raise ValueError("it is not a record of a snapshot")

    def _of_worker(self, worker: int) -> dict[str, State]:
        while len(self.workers) <= worker:
            self.workers.append({})
        return self.workers[worker]


def is_state(state: Mapping[str, Any]) -> bool:
    """Whether the main process can use it. The worker checks the rest of it."""
    session, ended = state.get("session"), state.get("ended")
    if not isinstance(session, str) or not is_session_id(session):
        return False
    if ended is True:
        times = state.get("ended_at"), state.get("forget_at")
        return isinstance(state.get("reason"), str) and all(map(is_time, times))
    return ended is False and type(state.get("revision")) is int and isinstance(state.get("grant"), dict)


def is_time(value: object) -> bool:
    """Seconds since 1970."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < TIME_LIMIT


class StateFolder:
    """Raises StateUnusable when the folder cannot be made or written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_whole = False  # whether the snapshot can be appended to
        self._lock: int | None = None
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.chmod(0o700)
        except OSError as error:
            raise self._unusable("", error) from None
        if not os.access(path, os.R_OK | os.W_OK | os.X_OK):  # checked now, before a join uses up its key
            raise StateUnusable(f"state folder {path}: cannot be written")

    def lock(self) -> None:
        """Exclude other node processes while this one runs. Raises StateUnusable if there is another one."""
        self._lock = os.open(self._path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StateUnusable(f"state folder {self._path}: another node process uses it") from None
        except OSError as error:  # a file system without locks
            log.warning("state folder %s cannot be locked: %s", self._path, error.strerror)

    # -- keys

    def read_keys(self) -> NodeKeys | None:
        try:
            content = self._content(KEYS)
            return None if content is None else _keys(content)
        except ValueError as error:
            self._set_aside(KEYS, error)
            return None

    def write_keys(self, keys: NodeKeys) -> None:
        with contextlib.suppress(OSError):
            (self._path / RESERVE).unlink(missing_ok=True)
        self._write(KEYS, [json.dumps({"format": FORMAT, **keys.to_json()}, separators=(",", ":")).encode() + b"\n"])

    def reserve_keys(self) -> None:
        """Reserve disk space for `write_keys`, so that a join does not use up its key in vain.

        Raises StateUnusable."""
        try:
            with open(os.open(self._path / RESERVE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(bytes(KEYS_SIZE))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise self._unusable(RESERVE, error) from None

    # -- snapshot

    def read_snapshot(self) -> Snapshot:
        """The stored snapshot. Unreadable records are skipped, and the file is then kept under another name."""
        self._is_whole = False
        snapshot, lines = Snapshot(), (self._content(SNAPSHOT) or b"").splitlines()
        bad = 0
        for number, line in enumerate(lines):
            try:
                snapshot.apply(_record(line))
            except ValueError:
                # A crash leaves an incomplete last line; anything else is damage.
                bad += number < len(lines) - 1 or number == 0
        if bad:
            self._set_aside(SNAPSHOT, ValueError(f"{bad} of {len(lines)} records are damaged"))
        return snapshot

    def write_snapshot(self, snapshot: Snapshot) -> int:
        """Replace the file; returns its size in bytes. Raises StateUnusable."""
        size = self._write(SNAPSHOT, map(_line, snapshot.records()))
        self._is_whole = True
        return size

    def append_snapshot(self, records: Iterable[object]) -> int:
        """Append changes; returns the size in bytes. After a read or a failed append, the snapshot must be rewritten
        first. Raises StateUnusable."""
        if not self._is_whole:
            raise StateUnusable(f"state folder {self._path}: {SNAPSHOT}: it was not rewritten yet")
        try:
            with open(self._path / SNAPSHOT, "ab") as file:
                file.writelines(map(_line, records))
                file.flush()
                os.fsync(file.fileno())
                return file.tell()
        except OSError as error:
            self._is_whole = False
            raise self._unusable(SNAPSHOT, error) from None

    # -- files

    def _content(self, name: str) -> bytes | None:
        """None when there is no such file."""
        try:
            return (self._path / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unusable(name, error) from None

    def _set_aside(self, name: str, error: ValueError) -> None:
        log.warning("%s is unusable (%s): set aside as %s.unreadable", self._path / name, error, name)
        try:
            (self._path / name).replace(self._path / f"{name}.unreadable")
        except OSError as failure:
            raise self._unusable(name, failure) from None

    def _write(self, name: str, lines: Iterable[bytes]) -> int:
        """Bytes written."""
        target = self._path / name
        temporary = target.with_suffix(".new")
        try:
            # Created with its mode, so that no other user can open it at any moment.
            temporary.unlink(missing_ok=True)
            try:
                with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    file.writelines(lines)
                    file.flush()
                    os.fsync(file.fileno())
                    size = file.tell()
            except OSError:
                with contextlib.suppress(OSError):
                    temporary.unlink()  # on a full disk the next attempt needs the space
                raise
            temporary.replace(target)
            self._sync_folder()
        except OSError as error:
            raise self._unusable(name, error) from None
        return size

    def _sync_folder(self) -> None:
        """Make the rename survive a power failure."""
        folder = os.open(self._path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _unusable(self, name: str, error: OSError) -> StateUnusable:
        return StateUnusable(f"state folder {self._path}: {name + ': ' if name else ''}{error.strerror}")


def _line(record: object) -> bytes:
    """With a checksum, which detects damage that is still valid JSON."""
    content = json.dumps(record, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(content), content)


def _record(line: bytes) -> object:
    """Raises ValueError."""
    checksum, _, content = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(content):
        raise ValueError("the checksum is wrong")
    return read_json(content)


def _keys(content: bytes) -> NodeKeys:
    document = read_json(content)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError("another program or version wrote it")
    return NodeKeys.from_json(document)

import json
import os
import stat
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from relaynode.errors import StateUnusable
from relaynode.supervision.state_folder import NodeKeys, Snapshot, StateFolder, token_keys_from_json

KEYS = NodeKeys(control_key="control-secret", node_key="cw_node_secret", token_keys={7: bytes(32), 9: b"k" * 32})
LIVE = {"session": "3960c873aafd-S", "ended": False, "revision": 3, "grant": {}}
OVER = {"session": "00000000beef-S", "ended": True, "reason": "idle", "ended_at": 1.5, "forget_at": 9.0}
SNAPSHOT = Snapshot([{LIVE["session"]: LIVE}, {}], listed_at=1.25)
EMPTY = Snapshot()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_keys_come_back_as_they_were(path):
    StateFolder(path).write_keys(KEYS)
    assert StateFolder(path).read_keys() == KEYS


def test_sessions_come_back_as_they_were(path):
    StateFolder(path).write_snapshot(SNAPSHOT)
    assert StateFolder(path).read_snapshot() == Snapshot(SNAPSHOT.workers[:1], 1.25)


def test_a_new_folder_is_empty(path):
    assert StateFolder(path).read_keys() is None
    assert StateFolder(path).read_snapshot() == EMPTY


def test_only_our_user_can_read(path):
    old_mask = os.umask(0)
    try:
        folder = StateFolder(path)
        folder.write_keys(KEYS)
        folder.write_snapshot(SNAPSHOT)
    finally:
        os.umask(old_mask)
    assert mode(path) == 0o700
    assert mode(path / "keys.json") == mode(path / "sessions.jsonl") == 0o600


def test_a_folder_that_others_could_read_is_closed(path):
    path.mkdir(mode=0o755)
    StateFolder(path)
    assert mode(path) == 0o700


def test_a_half_written_file_is_not_taken_for_the_snapshot(path):
    folder = StateFolder(path)
    folder.write_snapshot(SNAPSHOT)
    (path / "sessions.new").write_text("a crash while writing leaves this")
    assert folder.read_snapshot().workers == SNAPSHOT.workers[:1]
    folder.write_snapshot(EMPTY)
    assert folder.read_snapshot() == EMPTY


def test_changes_are_appended(path):
    folder = StateFolder(path)
    folder.write_snapshot(SNAPSHOT)
    newer = LIVE | {"revision": 4}
    folder.append_snapshot([[0, newer], [1, OVER], {"listed_at": 2.5}])
    assert StateFolder(path).read_snapshot() == Snapshot([{LIVE["session"]: newer}, {OVER["session"]: OVER}], 2.5)
    folder.append_snapshot([[1, OVER["session"]]])
    assert StateFolder(path).read_snapshot() == Snapshot([{LIVE["session"]: newer}, {}], 2.5)


def test_nothing_is_appended_to_what_was_read_or_failed(path):
    folder = StateFolder(path)
    folder.write_snapshot(SNAPSHOT)
    folder.read_snapshot()
    with pytest.raises(StateUnusable, match="not rewritten yet"):
        folder.append_snapshot([[0, LIVE]])


def test_half_a_last_line_is_what_a_crash_leaves(path, caplog):
    folder = StateFolder(path)
    folder.write_snapshot(SNAPSHOT)
    folder.append_snapshot([[1, OVER]])
    content = (path / "sessions.jsonl").read_bytes()
    (path / "sessions.jsonl").write_bytes(content[:-7])
    assert folder.read_snapshot() == Snapshot(SNAPSHOT.workers[:1], 1.25)
    assert not caplog.text


def checked(*lines: bytes) -> bytes:
    """With the right checksums: damage that only the shape shows."""
    return b"".join(b"%08x %s\n" % (zlib.crc32(line), line) for line in lines)


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe",
        b"not json",
        b"[" * 100_000,
        b"00000000 []\n",
        b'{"format": 1, "workers": 1, "sessions": 0}',
        checked(b"[" * 100_000),
        checked(b"[]"),
        checked(b"{}"),
        checked(b"null"),
        checked(b'{"listed_at": true}'),
        checked(b'{"listed_at": NaN}'),
        checked(b'{"listed_at": 1e300}'),
        checked(b"[0, 1]"),
        checked(b"[0, {}]"),
        checked(b'[0, {"session": 1, "ended": true}]'),
        checked(b'[0, {"session": "3960c873aafd-S"}]'),
        checked(b'[0, {"session": "3960c873aafd-S", "ended": true}]'),
        checked(b'[0, {"session": "3960c873aafd-S", "ended": true, "reason": 1, "ended_at": 1, "forget_at": 1}]'),
        checked(b'[0, {"session": "3960c873aafd-S", "ended": true, "reason": "x", "ended_at": 1, "forget_at": "x"}]'),
        checked(b'[0, {"session": "3960c873aafd-S", "ended": false, "revision": "3", "grant": {}}]'),
        checked(b'[0, {"session": "3960c873aafd-S", "ended": false, "revision": 3, "grant": []}]'),
        checked(b'[-1, {"session": "3960c873aafd-S", "ended": false, "revision": 3, "grant": {}}]'),
        checked(b'[256, {"session": "3960c873aafd-S", "ended": false, "revision": 3, "grant": {}}]'),
    ],
)
def test_damage_is_set_aside_and_the_other_records_are_served(path, content, caplog):
    folder = StateFolder(path)
    good = checked(json.dumps([0, LIVE]).encode())
    (path / "sessions.jsonl").write_bytes(content.removesuffix(b"\n") + b"\n" + good)
    assert folder.read_snapshot() == Snapshot(SNAPSHOT.workers[:1])
    assert (path / "sessions.jsonl.unreadable").read_bytes().endswith(good)
    assert not (path / "sessions.jsonl").exists()
    assert "set aside" in caplog.text


def test_every_byte_that_is_damaged_costs_one_record(path):
    folder = StateFolder(path)
    folder.write_snapshot(SNAPSHOT)
    folder.append_snapshot([[0, OVER]])
    content = (path / "sessions.jsonl").read_bytes()
    for position in range(0, len(content), 3):
        damaged = bytearray(content)
        damaged[position] ^= 0x01
        (path / "sessions.jsonl").write_bytes(damaged)
        found = folder.read_snapshot()
        held = {name for states in found.workers for name in states}
        assert len(held) + (found.listed_at == 1.25) >= 1
        for states in found.workers:
            assert all(state in (LIVE, OVER) for state in states.values())


def test_one_process_at_a_time(path):
    folder = StateFolder(path)
    folder.lock()
    program = f"""
from pathlib import Path
from relaynode.supervision.state_folder import StateFolder
StateFolder(Path({str(path)!r})).lock()
"""
    second = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "another node process uses it" in second.stderr


def test_room_for_keys_is_reserved_until_they_are_written(path):
    folder = StateFolder(path)
    folder.reserve_keys()
    assert mode(path / "keys.reserve") == 0o600
    assert (path / "keys.reserve").stat().st_size > len(json.dumps(KEYS.to_json()))
    folder.write_keys(KEYS)
    assert not (path / "keys.reserve").exists()
    assert folder.read_keys() == KEYS


@pytest.mark.parametrize(
    "change",
    [{"control_key": ""}, {"control_key": "secret\n"}, {"node_key": None}, {"token_keys": [{"id": 1, "key": "!"}]}],
)
def test_alien_keys_are_set_aside_without_repeating_them(path, change, caplog):
    folder = StateFolder(path)
    (path / "keys.json").write_text(json.dumps({"format": 1, **KEYS.to_json(), **change}))
    assert folder.read_keys() is None
    assert "set aside" in caplog.text
    assert "secret" not in caplog.text


GOOD_KEY = "A" * 43 + "="


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        [1],
        [{"id": 1}],
        [{"id": "1", "key": GOOD_KEY}],
        [{"id": True, "key": GOOD_KEY}],
        [{"id": [], "key": GOOD_KEY}],
        [{"id": 1 << 32, "key": GOOD_KEY}],
        [{"id": 1, "key": "QUJD"}],
        [{"id": 1, "key": "not base64"}],
    ],
)
def test_token_keys_are_checked(data):
    with pytest.raises(ValueError, match="token_keys"):
        token_keys_from_json(data)


def test_keys_do_not_show_in_repr():
    assert "secret" not in repr(KEYS)
    assert repr(bytes(32)) not in repr(KEYS)


def test_a_folder_that_cannot_be_made_is_said_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StateUnusable, match="file/state"):
        StateFolder(tmp_path / "file" / "state")

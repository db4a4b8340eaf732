import json
import os
import stat
from pathlib import Path

import pytest

from relaynode.errors import StateUnusable
from relaynode.state_folder import NodeKeys, StateFolder, token_keys_from_json

KEYS = NodeKeys(control_key="control-secret", node_key="cw_node_secret", token_keys={7: bytes(32), 9: b"k" * 32})
SESSIONS = [[{"session": "3960c873aafd-S", "revision": 3}], []]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_keys_come_back_as_they_were(path):
    StateFolder(path).write_keys(KEYS)
    assert StateFolder(path).read_keys() == KEYS


def test_sessions_come_back_as_they_were(path):
    StateFolder(path).write_sessions(SESSIONS)
    assert StateFolder(path).read_sessions() == SESSIONS


def test_a_new_folder_is_empty(path):
    assert StateFolder(path).read_keys() is None
    assert StateFolder(path).read_sessions() == []


def test_only_our_user_can_read(path):
    old_mask = os.umask(0)
    try:
        folder = StateFolder(path)
        folder.write_keys(KEYS)
        folder.write_sessions(SESSIONS)
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
    folder.write_sessions(SESSIONS)
    (path / "sessions.new").write_text('{"format": 1, "wor')  # a crash while writing leaves this
    assert folder.read_sessions() == SESSIONS
    folder.write_sessions([])
    assert folder.read_sessions() == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"not json",
        b"[" * 100_000,
        b"[]",
        b"{}",
        b'{"format": 2, "workers": 1, "sessions": 0}',
        b'{"format": 1, "workers": "1", "sessions": 0}',
        b'{"format": 1, "workers": true, "sessions": 0}',
        b'{"format": 1, "workers": 100000000000, "sessions": 0}',
        b'{"format": 1, "workers": 1, "sessions": 1}',
        b'{"format": 1, "workers": 1, "sessions": 1}\n[0, {"session": "x"}]\n[0, {"session": "y"}]',
        b'{"format": 1, "workers": 1, "sessions": 1}\n{}',
        b'{"format": 1, "workers": 1, "sessions": 1}\n[0, 1]',
        b'{"format": 1, "workers": 1, "sessions": 1}\n[0, {"session": 1}]',
        b'{"format": 1, "workers": 1, "sessions": 1}\n[1, {"session": "x"}]',
        b'{"format": 1, "workers": 1, "sessions": 1}\n[-1, {"session": "x"}]',
    ],
)
def test_an_alien_snapshot_is_set_aside_and_said_so(path, content, caplog):
    folder = StateFolder(path)
    (path / "sessions.jsonl").write_bytes(content)
    assert folder.read_sessions() == []
    assert (path / "sessions.jsonl.unreadable").read_bytes() == content
    assert not (path / "sessions.jsonl").exists()
    assert "set aside" in caplog.text


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

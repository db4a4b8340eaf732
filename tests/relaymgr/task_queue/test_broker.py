"""The broker's transports, with real processes: a slow writer, messages that cannot be read, a real Celery worker."""

import contextlib
import json
import os
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty

import pytest
import redis
from kombu import Connection, Consumer, Exchange, Queue
from kombu.exceptions import OperationalError

from relaymgr.task_queue import broker
from tests.flows.stack import ROOT
from tests.support.servers import redis as redis_server
from tests.support.waiting import wait_until

MESSAGES, UNDECODABLE = 10_000, 100
TASK = "tests.note"


def message(headers: object, body: object = "[[1], {}, {}]", tag: object = "", **more: object) -> bytes:
    tag = tag or uuid.uuid4().hex
    properties = {"delivery_tag": tag, "delivery_info": {"exchange": "", "routing_key": "probe"}, **more}
    kind = {"content-type": "application/json", "content-encoding": "utf-8"}
    return json.dumps({"body": body, "headers": headers, "properties": properties, **kind}).encode()


# No JSON, or JSON of another shape.
NO_MESSAGES = [
    b"",
    b"{",
    b"\xff\xfe",
    b"[" * 100_000,
    b"[]",
    b'"x"',
    b"null",
    b"{}",
    b'{"properties": {}}',
    b'{"properties": {"delivery_tag": [1]}, "headers": {"task": []}}',
]
# Messages that no producer of ours sends.
NO_TASKS = [
    message(None, None),
    message({"task": ["x"]}),
    message({"task": "no.such.task", "id": "1"}),
    message({"task": TASK, "id": 1, "expires": "soon"}),
    message({"task": TASK, "id": "2", "eta": "later"}),
    message({"task": TASK, "id": "3", "timelimit": 5}),
    message({"task": TASK, "id": "4", "retries": "x"}, '[[], {}, {"chord": 5}]'),
    message({"task": TASK, "id": "5"}, "[[1, 2, 3], {}, {}]"),
    message({"task": TASK, "id": "6"}, "[[], 5, {}]"),
    message({"task": TASK, "id": "7"}, "{"),
    message({"task": TASK, "id": "8"}, body_encoding="no.such"),
]
POISONED = NO_MESSAGES + NO_TASKS


def connection(folder: Path) -> Connection:
    broker.install()
    return Connection("filesystem://", transport_options={"folder": str(folder), "polling_interval": 0.001})


def queue(name: str) -> Queue:
    return Queue(name, Exchange(name), routing_key=name)


SLOW_WRITER = """
import sys, threading, time
from tests.relaymgr.task_queue.test_broker import broker, connection, queue

def write(channel, file, content):
    with file.open("wb", buffering=0) as half_written:
        half_written.write(content[:50])
        time.sleep(0.0002)
        half_written.write(content[50:])

broker.FileChannel._write = write
first, end = int(sys.argv[2]), int(sys.argv[3])
with connection(sys.argv[1]) as own, own.Producer() as producer:
    for number in range(first, end):
        producer.publish({"number": number}, exchange="work", routing_key="work", declare=[queue("work")])
"""


def test_nothing_is_lost_to_a_slow_writer_and_to_files_that_cannot_be_decoded(tmp_path: Path) -> None:
    arrived: Counter[int] = Counter()
    half = MESSAGES // 2
    writers = [
        subprocess.Popen([sys.executable, "-c", SLOW_WRITER, str(tmp_path), *map(str, numbers)], cwd=ROOT)
        for numbers in ((0, half), (half, MESSAGES))
    ]
    with connection(tmp_path) as own, own.channel() as channel:
        consumer = Consumer(channel, [queue("work")], no_ack=True, accept=["json"])
        consumer.register_callback(lambda body, _: arrived.update([body["number"]]))
        with consumer:
            spoilt = 0
            deadline = time.monotonic() + 120
            while arrived.total() < MESSAGES and time.monotonic() < deadline:
                if spoilt < UNDECODABLE and arrived.total() > spoilt * MESSAGES // UNDECODABLE:
                    content = NO_MESSAGES[spoilt % len(NO_MESSAGES)]
                    (tmp_path / "queue" / "work" / f"{time.time_ns():020d}-{spoilt}.msg").write_bytes(content)
                    spoilt += 1
                with contextlib.suppress(TimeoutError):
                    own.drain_events(timeout=0.1)
    assert [writer.wait(10) for writer in writers] == [0, 0]
    assert spoilt == UNDECODABLE
    assert arrived == Counter(range(MESSAGES))


@pytest.fixture(params=["files", "redis"])
def put(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[dict[str, str], Callable[[bytes], None]]]:
    """The broker's environment, and what puts a raw message into its queue `probe`."""
    if request.param == "files":
        folder = tmp_path / "broker" / "queue" / "probe"
        folder.mkdir(parents=True)
        yield {}, lambda raw: _put_file(folder, raw)
        return
    with redis_server(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        yield {"BROKER_URL": server.url}, lambda raw: client.lpush("probe", raw) and None


def _put_file(folder: Path, raw: bytes) -> None:
    (folder / f"{time.time_ns():020d}-{uuid.uuid4().hex}.msg").write_bytes(raw)


def test_a_worker_survives_each_message_that_it_cannot_process(
    put: tuple[dict[str, str], Callable[[bytes], None]], tmp_path: Path
) -> None:
    settings, put_raw = put
    notes, log = tmp_path / "notes", tmp_path / "worker.log"
    environment = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "BROKER_URL")}
    environment |= {"CAUSEWAY_STATE_DIR": str(tmp_path), "NOTES": str(notes), "CAUSEWAY_LOG_FORMAT": "json", **settings}
    argv = [sys.executable, "-m", "celery", "-A", "tests.relaymgr.broker_worker", "worker", "-P", "threads", "-c", "2"]
    argv += ["-Q", "probe", "-l", "WARNING", "--without-gossip", "--without-mingle"]
    with log.open("wb") as output:
        worker = subprocess.Popen(argv, cwd=ROOT, env=environment, stdout=output, stderr=output)
    try:
        for number in range(100):
            put_raw(POISONED[number % len(POISONED)])
            # More often than there is room for tasks at once: none of the poisoned ones may keep its room.
            put_raw(message({"task": TASK, "id": uuid.uuid4().hex}, json.dumps([[1_000 + number], {}, {}])))
        wait_until(lambda: worker.poll() is not None or _noted(notes) >= set(range(1_000, 1_100)), "all notes", 60)
        assert worker.poll() is None, log.read_text()[-3000:]
        assert log.read_text().count("moved a message") >= 50
    finally:
        worker.kill()
        worker.wait()


def _noted(notes: Path) -> set[int]:
    """What is in whole lines."""
    text = notes.read_text() if notes.exists() else ""
    return {int(line) for line in text[: text.rfind("\n") + 1].split()}


def test_dead_letters_are_kept_for_inspection_and_bounded(tmp_path: Path) -> None:
    with connection(tmp_path) as own, own.channel() as channel:
        folder = channel._folder("probe")
        for number in range(broker.DEAD_LETTERS_MAX + 5):
            (folder / f"{number:020d}.msg").write_bytes(f"spoilt {number}".encode())
        assert own.SimpleQueue(queue("probe")).qsize() == broker.DEAD_LETTERS_MAX + 5
        with pytest.raises(Empty):
            own.SimpleQueue(queue("probe")).get(block=False)
    kept = [file.read_bytes() for file in (tmp_path / "dead-letters").iterdir()]
    assert len(kept) == broker.DEAD_LETTERS_MAX and b"spoilt 104" in kept
    assert list(folder.iterdir()) == []


def test_a_queue_that_no_worker_reads_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "WAITING_MAX", 10)
    monkeypatch.setattr(broker, "WAITING_COUNTED_EVERY", 1)
    with connection(tmp_path) as own, own.SimpleQueue(queue("probe")) as simple:
        for _ in range(10):
            simple.put({})
        with pytest.raises((OperationalError, broker.ChannelError), match="full"):
            simple.put({})
        simple.get(block=False).ack()
        simple.put({})


def test_a_draft_left_by_a_writer_that_died_goes_away(tmp_path: Path) -> None:
    with connection(tmp_path) as own, own.channel() as channel:
        folder = channel._folder("probe")
        old, young = folder / ".old.msg", folder / ".young.msg"
        for draft in (old, young):
            draft.write_bytes(b"{")
        os.utime(old, (1, 1))
        assert channel._size("probe") == 0
        assert not old.exists() and young.exists()


@pytest.mark.parametrize("name", ["../x", "", ".hidden", "a/b", "x" * 300])
def test_a_queue_name_never_leaves_the_folder(tmp_path: Path, name: str) -> None:
    with connection(tmp_path) as own, own.channel() as channel, pytest.raises(broker.ChannelError):
        channel._folder(name)

"""Transports of the message broker: kombu's, extended to survive messages that cannot be processed.

With kombu alone, a message that is not JSON, or not structured like a message, ends the Celery worker that receives it.
Here it becomes a dead letter: it is logged, counted, and kept for inspection where possible, and the worker continues.

`FileTransport` is the broker of an installation without Redis. Each queue is a folder and each message a file in it. A
message is written under a hidden name and then renamed, so that no consumer reads an incomplete one. The consumer that
deletes the file has the message. Processes share queues but no bindings, so remote control of workers needs Redis.
"""

import contextlib
import logging
import os
import re
import time
import uuid
from collections import deque
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from queue import Empty
from typing import Any

from kombu.exceptions import ChannelError
from kombu.transport import TRANSPORT_ALIASES, redis, virtual
from kombu.utils.json import dumps, loads

logger = logging.getLogger(__name__)

MESSAGE_BYTES = 1_000_000  # larger files are not our messages
WAITING_MAX = 20_000  # messages in one queue; they expire within minutes, so more would be useless
WAITING_COUNTED_EVERY = 100  # messages sent by one channel
DEAD_LETTERS = "dead-letters"  # name of the folder
DEAD_LETTERS_MAX = 100  # files kept for inspection
DRAFT_ABANDONED_S = 3_600.0
_QUEUE = re.compile(r"[A-Za-z0-9_@-][A-Za-z0-9_@.-]{0,199}")


def install() -> None:
    """Registers these transports for `filesystem://`, `redis://` and `rediss://` URLs."""
    own = f"{__name__}:"
    TRANSPORT_ALIASES.update(
        filesystem=own + FileTransport.__name__,
        redis=own + RedisTransport.__name__,
        rediss=own + RedisTransport.__name__,
    )


def dead_letter_observe(queue: str, error: BaseException) -> None:
    """Logs and counts a dead letter, without its content, which may be secret."""
    from django.conf import settings

    from web import metrics

    metrics.messages_dead_lettered.labels(metrics.one_of(queue, settings.WORK_QUEUES)).inc()
    logger.error(
        "moved a message of queue %s that cannot be processed to the dead letters: %s", queue, type(error).__name__
    )


class _Delivery(virtual.Transport):
    """Rejects a message that the consumer fails to process because of its structure or headers; the consumer
    continues."""

    def _deliver(self, message: Any, queue: str | None) -> None:
        try:
            super()._deliver(message, queue)
        except (*self.connection_errors, *self.channel_errors):
            raise
        except Exception as error:
            dead_letter_observe(queue or "unknown", error)
            self._forget(message)

    def _forget(self, message: Any) -> None:
        """Otherwise the message would stay unacknowledged for ever, and Redis would deliver it again."""
        for channel in self.channels or ():
            with contextlib.suppress(TypeError, KeyError):
                tag = message["properties"]["delivery_tag"]
                if channel.qos.get(tag):
                    channel.basic_reject(tag, requeue=False)


# Redis


class RedisChannel(redis.Channel):
    def _brpop_read(self, **options: Any) -> bool | None:
        try:
            return super()._brpop_read(**options)  # type: ignore[misc]  # the stubs lack it
        except Exception as error:
            if isinstance(error, (Empty, *self.connection.connection_errors, *self.connection.channel_errors)):
                raise
            # A message that cannot be decoded; `_deliver` raises nothing else. It is no longer in Redis.
            dead_letter_observe("unknown", error)
            return None


class RedisTransport(_Delivery, redis.Transport):
    Channel = RedisChannel


# Files


class FileChannel(virtual.Channel):
    """Options: `folder`, in which it keeps `queue/<name>/` for each queue, and `dead-letters/`."""

    supports_fanout = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._listed: dict[str, deque[str]] = {}  # remaining files of the last listing of each queue
        self._sent = 0

    @cached_property
    def _root(self) -> Path:
        return Path(self.connection.client.transport_options["folder"])  # type: ignore[union-attr, index]

    def _folder(self, queue: str) -> Path:
        if not _QUEUE.fullmatch(queue):
            raise ChannelError(f"Invalid queue name: {queue!r}")
        folder = self._root / "queue" / queue
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _put(self, queue: str, message: Any, **kwargs: Any) -> None:
        try:
            folder = self._folder(queue)
            if self._sent % WAITING_COUNTED_EVERY == 0 and self._size(queue) >= WAITING_MAX:
                raise ChannelError(f"Queue {queue} is full, because no worker takes its messages.")
            self._sent += 1
            name = f"{time.time_ns():020d}-{uuid.uuid4().hex}.msg"
            draft = folder / f".{name}"
            try:
                self._write(draft, dumps(message).encode())
                draft.rename(folder / name)
            except OSError:
                draft.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise ChannelError(f"Cannot add a message to queue {queue}: {error.strerror}") from error

    def _write(self, file: Path, content: bytes) -> None:
        file.write_bytes(content)

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        for file in self._next_files(queue):
            try:
                if file.stat().st_size > MESSAGE_BYTES:
                    raise ValueError("too large")
                content = file.read_bytes()
                message = loads(content.decode())
            except FileNotFoundError:
                continue  # another consumer was faster
            except Exception as error:  # what decoding raises depends on the content
                self._move_to_dead_letters(file, queue, error)
                continue
            try:
                file.unlink()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise ChannelError(f"Cannot take a message from queue {queue}: {error.strerror}") from error
            return message
        raise Empty

    def _next_files(self, queue: str) -> Iterator[Path]:
        """The oldest first. A folder is listed again when all files of the last listing are taken."""
        folder = self._folder(queue)
        listed = self._listed.setdefault(queue, deque())
        if not listed:
            listed.extend(sorted(self._names(folder)))
        while listed:
            yield folder / listed.popleft()

    def _names(self, folder: Path) -> list[str]:
        names = []
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(".msg") and not entry.name.startswith("."):
                    names.append(entry.name)
                elif entry.name.startswith("."):
                    self._delete_abandoned(entry)
        return names

    def _delete_abandoned(self, draft: os.DirEntry[str]) -> None:
        """Deletes the draft of a writer that ended before it renamed it."""
        with contextlib.suppress(OSError):
            if time.time() - draft.stat().st_mtime > DRAFT_ABANDONED_S:
                os.unlink(draft.path)

    def _move_to_dead_letters(self, file: Path, queue: str, error: Exception) -> None:
        folder = self._root / DEAD_LETTERS
        try:
            folder.mkdir(exist_ok=True)
            file.rename(folder / f"{time.time_ns():020d}-{queue}-{file.name[-40:]}")
        except FileNotFoundError:
            return  # another consumer was faster
        except OSError as failure:
            logger.error("cannot move %s to the dead letters: %s", file, failure.strerror)
            return
        dead_letter_observe(queue, error)
        for old in sorted(folder.iterdir())[:-DEAD_LETTERS_MAX]:
            with contextlib.suppress(OSError):
                old.unlink()

    def _size(self, queue: str) -> int:
        return len(self._names(self._folder(queue)))

    def _purge(self, queue: str) -> int:
        folder, count = self._folder(queue), 0
        for name in self._names(folder):
            with contextlib.suppress(OSError):
                (folder / name).unlink()
                count += 1
        return count


class FileTransport(_Delivery, virtual.Transport):
    Channel = FileChannel
    default_port = 0
    driver_type = driver_name = "filesystem"
    # Bindings of this process only: each process declares the queues to which it sends.
    global_state = virtual.BrokerState()

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        self.state = self.global_state

    def driver_version(self) -> str:
        return "1"

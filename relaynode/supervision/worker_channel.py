"""The messages between the parent process and a worker: JSON objects, one per line, over a socket pair.

| from | line | |
|---|---|---|
| parent | `{"id": 7, "do": <command>, ...}` | a command with its arguments |
| worker | `{"id": 7, "result": ...}` | the command was executed |
| worker | `{"id": 7, "refused": <code>, "message", "field"}` | the core refused it |
| worker | `{"event": {...}}` | an event, as in docs/node-api.md |
| worker | `{"state": {...}}` | the state of one session, after a change |
| worker | `{"connection": {...}}` | the state of one player's connection, after a change |

Lines keep their order, so the parent reads all changes of a command before its result.

| command | arguments | result |
|---|---|---|
| `configure` | `index`, `max_seats`, `limits` | null |
| `keys` | `token_keys`: [[id, base64], ...] | null |
| `restore` | `state`, `connections`: as in `{"state": ...}` and `{"connection": ...}` before | null |
| `restore_ended` | `states`: of sessions that ended | null |
| `serve` | | null; the worker reads packets from now on |
| `freeze` | | `{"parts", "counters", "cpu_seconds"}`; packets wait in the sockets from now on |
| `progress` | `part`: below `parts` | base64; what changes with every packet of a connection |
| `thaw` | | null; the frozen worker reads packets again |
| `forget` | `session` | null; a restored session that has changed since then |
| `set_progress` | `packed`: from `progress` of the frozen worker | null |
| `grant` | `grant` | the revision in force |
| `end` | `session`, `reason` | null |
| `drain` | `draining` | null |
| `listed` | `known`: whether a list was read; of an applied list `at`, `ended_before`, `sessions` | those forgotten |
| `announce_shutdown` | | null; native players are notified |
| `report` | `legs`: the maximum | `{"stats", "counters", "legs", "paths", "cpu_seconds", "receive_buffer", "memory"}` |

The parent closes its end to stop a worker, and a parent that dies does the same.
"""

import asyncio
import json
import socket
from typing import Any

Message = dict[str, Any]

MAX_LINE = 4 << 20


class WorkerChannel:
    """One end of the channel."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> "WorkerChannel":
        return cls(*await asyncio.open_unix_connection(sock=end, limit=MAX_LINE))

    def send(self, message: Message) -> None:
        self._writer.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")

    async def receive(self) -> Message | None:
        """The next message; None: the other end is closed."""
        try:
            line = await self._reader.readline()
        except ConnectionError:
            return None
        if not line.endswith(b"\n"):
            return None
        message: Message = json.loads(line)
        return message

    def close(self) -> None:
        self._writer.close()

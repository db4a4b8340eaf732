"""What parent and worker say to each other: JSON objects, one a line, over a socket pair.

| from | line | |
|---|---|---|
| parent | `{"id": 7, "do": <command>, ...}` | a command with its arguments |
| worker | `{"id": 7, "result": ...}` | it was obeyed |
| worker | `{"id": 7, "refused": <code>, "message", "field"}` | the core said no |
| worker | `{"event": {...}}` | an event, as in docs/node-api.md |
| worker | `{"state": {...}}` | what there is to remember of one session changed: this is it now |

Lines keep their order, so when a command's result is read, all that it changed has been read before.

| command | arguments | result |
|---|---|---|
| `configure` | `index`, `max_seats`, `limits` | null |
| `keys` | `token_keys`: [[id, base64], ...] | null |
| `restore` | `state`: as in `{"state": ...}` before | null |
| `restore_ended` | `states`: of sessions that ended | null |
| `serve` | | null; from now on packets are read |
| `grant` | `grant` | the revision in force |
| `end` | `session`, `reason` | null |
| `drain` | `draining` | null |
| `listed` | `known`: whether the list was read; of one taken over `at`, `ended_before`, `sessions` | those forgotten |
| `announce_shutdown` | | null; native players are told |
| `report` | `legs`: how many at most | `{"stats", "counters", "legs", "cpu_seconds", "receive_buffer", "memory"}` |

The parent closes its end to stop a worker, and a parent that dies does the same.
"""

import asyncio
import json
import socket
from typing import Any

Message = dict[str, Any]

MAX_LINE = 4 << 20


class Channel:
    """One end of it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> "Channel":
        return cls(*await asyncio.open_unix_connection(sock=end, limit=MAX_LINE))

    def send(self, message: Message) -> None:
        self._writer.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")

    async def receive(self) -> Message | None:
        """The next message; None when the other end is gone."""
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

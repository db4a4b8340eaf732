"""The player's end of the lab's protocol: JSON objects, one a line, from the lab on standard input, to it on standard
output.

    lab to player                             player to lab
    {"start": 3, "config": {...}}             {"round": 3, "signal": ...}      for the player of the other side
    {"round": 3, "signal": ...}               {"round": 3, "ready": 17.25}     it knows the other side's candidates
    {"round": 3, "silence": true}             {"round": 3, "direct": 17.27, "path": "..."}
    {"round": 3, "check": true}               {"round": 3, "held": true}       the answer to "check"
    {"stop": 3}                               {"round": 3, "joined": true}      packets arrive, by whichever path
                                              {"round": 3, "failed": "..."}
                                              {"round": 3, "stopped": true}

Times are those of CLOCK_MONOTONIC in seconds, which all processes of a machine share. A player goes on with its part of
a round until it is stopped, because the other side may not be done. After "silence", it sends nothing on behalf of the
game; at "check", both players send packets, and each reports whether all of the other's came over the direct path.
"""

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

CHECK_PACKETS, CHECK_INTERVAL, CHECK_WITHIN = 10, 0.02, 1.0  # seconds between packets, and after the last one


class Round:
    """One try of a pair. `config` has `side` (0 or 1), `stun` (addresses of a STUN server, with ports), and what else
    the program needs."""

    def __init__(self, number: int, config: dict[str, Any]) -> None:
        self.number = number
        self.config = config
        self.silence = asyncio.Event()
        self.check = asyncio.Event()
        self._signals: asyncio.Queue[Any] = asyncio.Queue()

    @property
    def side(self) -> int:
        return int(self.config["side"])

    def send_signal(self, message: object) -> None:
        """To the player of the other side."""
        self._report(signal=message)

    async def next_signal(self) -> Any:
        """The next message of the other side's player."""
        return await self._signals.get()

    def ready(self) -> None:
        """From now on, this player can try to reach the other one."""
        self._report(ready=time.monotonic())

    def direct(self, path: str) -> None:
        """Packets go directly, and answers come back. `path`: a description."""
        self._report(direct=time.monotonic(), path=path)

    def joined(self) -> None:
        """The other player's packets arrive, by whichever path."""
        self._report(joined=True)

    def failed(self, reason: str) -> None:
        self._report(failed=reason)

    async def answer_check(self, send: Callable[[bytes], Awaitable[object]], received: Callable[[], int]) -> None:
        """Waits for the check. `send` sends one packet to the other player; `received` counts those that came directly
        from it since the silence began."""
        await self.check.wait()
        for number in range(CHECK_PACKETS):
            await send(b"check %d" % number)
            await asyncio.sleep(CHECK_INTERVAL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CHECK_WITHIN):
                while received() < CHECK_PACKETS:
                    await asyncio.sleep(CHECK_INTERVAL)
        self._report(held=received() >= CHECK_PACKETS)

    def message_arrived(self, message: dict[str, Any]) -> None:
        if "signal" in message:
            self._signals.put_nowait(message["signal"])
        elif "silence" in message:
            self.silence.set()
        elif "check" in message:
            self.check.set()

    def _report(self, **fields: object) -> None:
        report({"round": self.number, **fields})


Play = Callable[[Round], Awaitable[None]]


def run(play: Play) -> None:
    """Plays rounds until standard input ends."""
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(play))


def report(message: dict[str, object]) -> None:
    print(json.dumps(message), flush=True)


async def _serve(play: Play) -> None:
    lines = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    report({"started": True})
    current: Round | None = None
    task: asyncio.Task[None] | None = None
    while line := await lines.readline():
        message = json.loads(line)
        if "start" in message:
            current = Round(message["start"], message["config"])
            task = asyncio.create_task(_play(play, current))
        elif "stop" in message and task is not None:
            task.cancel()
            await asyncio.wait([task])
            report({"round": message["stop"], "stopped": True})
        elif current is not None and message.get("round") == current.number:
            current.message_arrived(message)


async def _play(play: Play, current: Round) -> None:
    try:
        await play(current)
    except Exception as error:  # whatever a program raises is the outcome of its round
        current.failed(f"{type(error).__name__}: {error}")

"""Causeway's own client: it plays through a relay node, and moves to a direct path when it finds one.

Besides what every player gets, `config` has `node` (addresses, port, URL and certificate), `connect_token`, `seat_key`
and `peer_keys`.
"""

import asyncio
import ssl

from causeway_client.asyncio_udp import Connection, DirectSettings, connect
from causeway_client.protocol.events import PathChanged
from natlab.players.rounds import Round, run

INTERVAL = 1 / 60  # seconds between two packets of the game
LATE = 1.0  # seconds in which the last packets of the game arrive
RELAY = "relay"


async def play(current: Round) -> None:
    config = current.config
    connection = await connect(
        config["node"]["hosts"],
        config["node"]["port"],
        connect_token=config["connect_token"],
        seat_key=config["seat_key"],
        peer_keys=config["peer_keys"],
        direct=DirectSettings(hard_nats=config["hard_nats"]),
        websocket_url=config["node"]["websocket_url"],
        ssl_context=ssl.create_default_context(cadata=config["node"]["certificate"]),
    )
    async with connection, asyncio.TaskGroup() as tasks:
        tasks.create_task(_play_game(current, connection, 1 - current.side))
        async for event in connection.events():
            if isinstance(event, PathChanged) and event.path != RELAY:
                current.direct(event.path)


async def _play_game(current: Round, connection: Connection, peer: int) -> None:
    received = 0

    async def receive() -> None:
        nonlocal received
        async for _ in connection:
            if not received:
                current.joined()
            received += 1

    def received_directly() -> int:
        return received if any(info.seat == peer and info.path for info in connection.paths()) else 0

    async def send(payload: bytes) -> None:
        connection.send(payload, peer)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(receive())
        while not current.silence.is_set():
            await send(b"state of the game")
            await asyncio.sleep(INTERVAL)
        await asyncio.sleep(LATE)
        received = 0
        await current.answer_check(send, received_directly)


if __name__ == "__main__":
    run(play)

"""Causeway's own client: it plays through a relay node, and moves to a direct path when it finds one.

Besides what every player gets, `config` has `node` (addresses and port), `connect_token`, `seat_key` and `peer_keys`.
"""

import asyncio

from causeway_client.asyncio_udp import Connection, DirectSettings, connect
from causeway_client.protocol.events import PathChanged
from natlab.players.rounds import Round, run

INTERVAL = 1 / 60  # seconds between two packets of the game
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
    )
    async with connection, asyncio.TaskGroup() as tasks:
        tasks.create_task(_send(connection, 1 - current.side))
        tasks.create_task(_receive(connection))
        async for event in connection.events():
            if isinstance(event, PathChanged) and event.path != RELAY:
                current.direct(event.path)


async def _send(connection: Connection, target: int) -> None:
    number = 0
    while True:
        connection.send(number.to_bytes(4, "little"), target)
        number += 1
        await asyncio.sleep(INTERVAL)


async def _receive(connection: Connection) -> None:
    async for _ in connection:
        pass


if __name__ == "__main__":
    run(play)

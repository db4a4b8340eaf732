"""aioice, as a comparator: ICE (RFC 8445) in Python."""

import asyncio

import aioice

from natlab.players.rounds import Round, run


async def play(current: Round) -> None:
    servers = [(ip, port) for ip, port in current.config["stun"]]
    connection = aioice.Connection(ice_controlling=current.side == 0, stun_server=servers[0])
    try:
        await connection.gather_candidates()
        current.send_signal(
            {
                "username": connection.local_username,
                "password": connection.local_password,
                "candidates": [candidate.to_sdp() for candidate in connection.local_candidates],
            }
        )
        peer = await current.next_signal()
        connection.remote_username, connection.remote_password = peer["username"], peer["password"]
        for candidate in peer["candidates"]:
            await connection.add_remote_candidate(aioice.Candidate.from_sdp(candidate))
        await connection.add_remote_candidate(None)
        current.ready()
        await connection.connect()
        current.direct("")
        received = 0

        async def receive() -> None:
            nonlocal received
            while True:
                await connection.recv()
                received += 1

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(receive())
            await current.answer_check(connection.send, lambda: received)
            await asyncio.Event().wait()
    finally:
        await connection.close()


if __name__ == "__main__":
    run(play)

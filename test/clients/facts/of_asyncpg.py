# Of asyncpg: a list needs no cast; the timeout of a call ends it in the server, too.
import asyncio
import asyncpg


async def main():
    conn = await asyncpg.connect()
    other = await asyncpg.connect()
    image = await conn.fetchval("SELECT image FROM sketches WHERE id = 1")
    assert await conn.fetchval(
        "SELECT bicycle_translate($1, $2, model => 'edges')", image, [0.1] * 8)
    assert not conn.is_in_transaction()
    try:
        await conn.execute("SELECT pg_sleep(600)", timeout=0.5)
        assert False
    except asyncio.TimeoutError:
        pass
    while await other.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'active'"
            " AND query = 'SELECT pg_sleep(600)'"):
        await asyncio.sleep(0.1)
    await conn.close()
    await other.close()

asyncio.run(main())

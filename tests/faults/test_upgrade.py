"""What an older release had in hand when it was stopped is brought to its end by this one."""

import pytest
from tests.faults.program import until
from tests.faults.world import adding, exact

pytestmark = [pytest.mark.fault, pytest.mark.timeout(600)]

WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
HOLD = """SELECT pg_advisory_lock(hashtextextended(account_id::text, slice))
    FROM (SELECT account_id FROM ingestions ORDER BY id DESC LIMIT 1) newest, generate_series(0, 15) slice"""
OF_ANOTHER_RELEASE = """UPDATE ingestions SET checked = checked - 'form' || '{"folder": "gone"}'
    WHERE id = (SELECT id FROM ingestions ORDER BY id DESC LIMIT 1)"""


async def test_a_file_that_an_older_release_checked_is_checked_again_and_loses_nothing(program, client):
    program.arm("in the check, rows read")
    await client.push("first", adding("Rock"))
    await program.held()
    with program.sql() as sql:
        sql.execute(HOLD)  # nothing is applied for as long as this connection is there
        program.release()
        await until(lambda: sql.execute(WAITING).fetchone()[0])
        sql.execute(OF_ANOTHER_RELEASE)
        await program.kill()
    await program.start()
    await exact(client, ["Rock"])

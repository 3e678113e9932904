"""What an account may keep, over HTTP: the same count as over SFTP (T42)."""

import asyncio
from collections import Counter
from dataclasses import replace

import httpx
import pytest

from ingestd.app.role import Role
from ingestd.app.service import running
from ingestd.domain import ids
from ingestd.domain.ids import Prefix
from ingestd.settings import QuotaSettings
from ingestd.store import usage

SIZE = 100_000


@pytest.mark.threat("T42")
async def test_of_twenty_uploads_at_once_just_those_are_accepted_that_have_room(ground, tenant):
    quota = QuotaSettings(stored_bytes=5 * SIZE + SIZE // 2)
    small = replace(ground, settings=ground.settings.model_copy(update={"quota": quota}))
    async with (
        running(small, [Role.API]) as api,
        httpx.AsyncClient(base_url=api.http_url, headers=tenant.http.headers, trust_env=False, timeout=60) as http,
    ):
        answers = await asyncio.gather(*(http.put(f"/v1/files/{n}.csv", content=bytes(SIZE)) for n in range(20)))
        assert Counter(answer.status_code for answer in answers) == {201: 5, 409: 15}
        assert {answer.json()["code"] for answer in answers if answer.is_error} == {"quota_exceeded"}
        async with api.intake.sessions() as session:
            assert await usage.stored(session, ids.read(Prefix.ACCOUNT, tenant.id)) == 5 * SIZE
        kept = next(answer.json()["id"] for answer in answers if answer.is_success)
        assert (await http.delete(f"/v1/files/{kept}")).status_code == 204
        assert (await http.put("/v1/files/again.csv", content=bytes(SIZE))).status_code == 201

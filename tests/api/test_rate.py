"""Rate limits of keys: counted for each key, told in every answer."""

import httpx
import pytest

from ingestd.api.app import create_api
from ingestd.api.context import Parts
from ingestd.api.rate import Rate


@pytest.fixture
async def strict(app):
    """The API over the same service, with room for three requests a minute."""
    parts = Parts(intake=app.intake, egress_allow=(), sftp=None, rate=Rate(per_key=3, wrong_keys=2), checks={})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(create_api(parts)), base_url="http://test") as client:
        yield client


@pytest.mark.threat("T53")
async def test_a_key_that_asks_too_much_is_told_when_to_come_back(strict, tenant, other):
    headers = {"Authorization": f"Bearer {tenant.key}"}
    answers = [await strict.get("/v1/me", headers=headers) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert [answer.headers["ratelimit"].split(";")[1] for answer in answers] == ["r=2", "r=1", "r=0", "r=0", "r=0"]
    refused = answers[-1]
    assert refused.json()["code"] == "too_many_requests"
    assert refused.headers["ratelimit"].endswith(f"t={refused.headers['retry-after']}")
    fresh = await strict.get("/v1/me", headers={"Authorization": f"Bearer {other.key}"})
    assert fresh.status_code == 200

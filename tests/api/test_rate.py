"""Rate limits of keys: counted for each key, told in every answer."""

import httpx
import pytest

from ingestd.api import rate
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


@pytest.mark.threat("T14")
async def test_who_has_many_requests_under_way_keeps_nobody_else_out(tenant, other, monkeypatch):
    monkeypatch.setattr(rate, "AT_ONCE", 2)
    stream = "/v1/webhook-events/stream"
    async with tenant.http.stream("GET", stream) as one, tenant.http.stream("GET", stream) as two:
        assert (one.status_code, two.status_code) == (200, 200)
        third = await tenant.http.get("/v1/me")
        assert (third.status_code, third.json()["code"]) == (429, "too_many_requests")
        assert third.headers["retry-after"] == "1"
        assert (await other.http.get("/v1/me")).status_code == 200
    while (await tenant.http.get("/v1/me")).status_code == 429:
        pass  # until the server has seen that nobody listens

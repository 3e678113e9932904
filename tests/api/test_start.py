"""What the application has made before it is first asked for anything."""

import gc
from types import SimpleNamespace

from httpx import ASGITransport, AsyncClient

from ingestd.api.app import create_api

FEW = 2_000
"""Objects of one request; the routes are forty thousand."""


def objects():
    gc.collect()
    return len(gc.get_objects())


async def test_the_first_request_need_not_wait_until_the_routes_are_made():
    api = create_api(SimpleNamespace())
    async with AsyncClient(transport=ASGITransport(api), base_url="http://test") as client:
        before = objects()
        assert (await client.get("/version")).status_code == 200
        assert objects() - before < FEW

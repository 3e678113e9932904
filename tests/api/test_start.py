"""What the application has made before it is first asked for anything."""

import gc
import sys
from types import SimpleNamespace

from httpx import ASGITransport, AsyncClient

from ingestd.api.app import create_api

FEW = 10_000
"""Blocks of memory, many more than a request takes; the routes are sixty thousand."""


def blocks():
    """Counted without a hold on any object: a tuple that another thread is making cannot grow while it has one."""
    gc.collect()
    return sys.getallocatedblocks()


async def test_the_first_request_need_not_wait_until_the_routes_are_made():
    api = create_api(SimpleNamespace())
    async with AsyncClient(transport=ASGITransport(api), base_url="http://test") as client:
        before = blocks()
        assert (await client.get("/nowhere")).status_code == 404  # every route is asked whether it is meant
        assert blocks() - before < FEW
